"""People who answer in Label Studio: queries become its tasks, annotations become answers."""

import base64
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from xml.sax.saxutils import quoteattr

from lightning.pytorch.utilities import rank_zero_warn

from ssl_lightning.data.base import DataModule
from ssl_lightning.data.samples import Shown
from ssl_lightning.engine.ranges import above, given, text, whole
from ssl_lightning.labelling.label_studio_server import Server, ServerError
from ssl_lightning.labelling.oracle import Oracle
from ssl_lightning.labelling.records import Answer, Kind, Query, Reply

TAGS = {"image": ("Image", "image/png"), "audio": ("Audio", "audio/wav")}  # of Label Studio, and of a data URI
MORE = {"audio": ' player="html5" decoder="none"'}  # else it fetches the sound anew, which no data URI allows
VERSION = "ssl-lightning"  # of predictions
CAPTION = '  <Text name="caption" value="$caption"/>'
CONTROL, UNSURE, OBJECT = "class", "unsure", "sample"  # names within the projects that are made here
SIZE = 50  # tasks that are sent or read at a time
AGAIN = 300  # seconds after which all tasks are read, not the new ones alone: somebody may have removed some
LONGEST = 2**31 - 1  # milliseconds that the store can keep

Sample = tuple[str, str]  # key and fingerprint


class Project(NamedTuple):
    """What must be known of a project.

    Attributes:
        id: Its number.
        control: Name of the control that classes are chosen with.
        object: Name of what shows the sample.
        tag: Its kind, as `Image`.
        field: Of a task's data, that it shows.
        labels: Classes that can be chosen.
        config: The labelling interface, as XML.
    """

    id: int
    control: str
    object: str
    tag: str
    field: str
    labels: tuple[str, ...]
    config: str


class LabelStudio(Oracle):
    """People at a Label Studio server; a query is a task with the model's guess as its prediction.

    The access token is that of the environment variable `LABEL_STUDIO_TOKEN`, or of a file, and is kept nowhere. A
    sample that has a task in the project is not sent again, whatever happened to the run in between. While the server
    cannot be reached, the run says so once and goes on waiting. Where several people label each sample, the class that
    most of them chose holds, and what each of them said is in the history; a tie is `unsure`.

    Args:
        project: Number of a project, or the title of one, of 3 to 50 characters, which is made where there is none.
        url: Of the server.
        token_file: File with the access token; null for that of the environment.
        overlap: People who label each sample, of a project that is made here.
        interval: Seconds between two looks for answers.

    Raises:
        ValueError: If an argument is none.

    Reference:
        Label Studio's REST interface, https://api.labelstud.io; tried with version 1.23.
    """

    name = "label-studio"
    external: ClassVar[bool] = True

    def __init__(
        self,
        project: int | str,
        url: str = "http://localhost:8080",
        token_file: str | None = None,
        overlap: int = 1,
        interval: float = 5.0,
    ) -> None:
        whole(1, overlap=overlap)
        above(0, interval=interval)
        text(**given(token_file=token_file))
        if isinstance(project, str) and not 3 <= len(project) <= 50:
            raise ValueError(f"`project={project:.60}` is no title that Label Studio takes: give 3 to 50 characters.")
        if not isinstance(project, str):
            whole(1, project=project)
        self.project, self.overlap, self.interval = project, overlap, interval
        self.server = Server(url, token_file)
        self._found: Project | None = None
        self._tasks: dict[Sample, dict[int, dict[str, Any]]] = {}  # that are there, by their numbers
        self._sent: set[Sample] = set()  # which may not be listed yet
        self._emails: dict[int, str] = {}
        self._since: str | None = None  # when the task that changed last did so, by the server's clock
        self._next = self._full = -float("inf")  # when to look again, and when all was read
        self._told: set[str] = set()
        self._trouble = ""  # what the server said last, unless it answered since

    def answer(self, keys: Sequence[str], data: DataModule) -> Sequence[Reply]:
        """Answer later: what was asked for is sent once it is noted, by `collect`."""
        return [None] * len(keys)

    def open(self, folder: Path, store: str) -> None:
        """Note the project's address.

        Raises:
            ValueError: If the server cannot be reached, or refuses.
        """
        found = self._find()
        self.address = f"{self.server.url}/projects/{found['id'] if found else ''}"

    def collect(self, pending: Sequence[Query], data: DataModule) -> Sequence[Answer]:
        """Send what was not sent yet, and return what was answered since; nothing while the server is away."""
        if not pending or time.monotonic() < self._next:
            return []
        try:
            if self._found is None:
                self._found = self._open_project(pending, data)
            if self._found is None:
                return []
            self._read(self._found)
            self._send(self._found, pending, data)
            answers = [answer for query in pending for answer in self._verdict(query, data.class_names)]
        except ServerError as error:
            self._found = None  # it may be another one when the server is back
            if str(error) != self._trouble:
                rank_zero_warn(f"{error} The run goes on waiting, and tries again every {self.interval:g} s.")
            self._trouble = str(error)
            return []
        finally:
            self._next = time.monotonic() + self.interval
        self._trouble = ""
        return answers

    def _tell(self, news: str) -> None:
        if news not in self._told:
            self._told.add(news)
            rank_zero_warn(news)

    def _find(self) -> dict[str, Any] | None:
        """Return the project, or null where none has the title."""
        if not isinstance(self.project, str):
            found: dict[str, Any] = self.server.call("GET", f"/api/projects/{self.project}")
            return found
        page = self.server.call("GET", "/api/projects", title=self.project, page_size=100)
        same = [one for one in page["results"] if one["title"] == self.project]
        return min(same, key=lambda one: int(one["id"])) if same else None

    def _open_project(self, pending: Sequence[Query], data: DataModule) -> Project | None:
        """Find or make the project, with the run's classes; null where no sample is there to tell what to show."""
        self._tasks, self._sent, self._since = {}, set(), None
        shown = next((shown for query in pending if (shown := self._show(query, data))), None)
        found = self._find()
        if found is None:
            if shown is None:
                return None
            config = labelling_config(shown.kind, data.class_names, shown.caption is not None)
            new = {"title": self.project, "label_config": config, "maximum_annotations": self.overlap}
            # else a task that is skipped waits for somebody else, who may not be there
            found = self.server.call("POST", "/api/projects", new | {"skip_queue": "IGNORE_SKIPPED"})
        project = as_project(found)
        wanted = TAGS[shown.kind][0] if shown and shown.kind in TAGS else "Text"
        if shown is not None and project.tag not in (wanted, "HyperText" if wanted == "Text" else wanted):
            raise ServerError(
                f"project {project.id} at `{self.server.url}` shows {project.tag}, and the data are {wanted}; give "
                "another `project`, or change its labelling interface."
            )
        return self._with_classes(project, data.class_names)

    def _with_classes(self, project: Project, names: Sequence[str]) -> Project:
        """Add the classes that a project lacks, if its interface was made here."""
        missing = [name for name in names if name not in project.labels]
        if not missing:
            return project
        kind = next((kind for kind, (tag, _) in TAGS.items() if tag == project.tag), "text")
        captioned = CAPTION in project.config
        if project.config != labelling_config(kind, project.labels, captioned):
            self._tell(
                f"project {project.id} at `{self.server.url}` has no choice for {', '.join(missing)}; add it to its "
                "labelling interface."
            )
            return project
        config = labelling_config(kind, [*project.labels, *missing], captioned)
        return as_project(self.server.call("PATCH", f"/api/projects/{project.id}", {"label_config": config}))

    def _read(self, project: Project) -> None:
        """Read the tasks that changed since the last time; from time to time all."""
        if time.monotonic() - self._full > AGAIN:
            self._tasks, self._sent, self._since, self._full = {}, set(), None, time.monotonic()
        page = 1
        while True:
            found = self.server.tasks(project.id, self._since, page, SIZE)
            for task in found["tasks"]:
                meta = task.get("meta") or {}
                if isinstance(meta.get("key"), str):
                    self._tasks.setdefault((meta["key"], meta.get("fingerprint") or ""), {})[task["id"]] = {
                        name: task.get(name) for name in ("annotations", "overlap")
                    }
            latest = max((task["updated_at"] for task in found["tasks"]), default=self._since)
            if page * SIZE >= found["total"]:
                self._since = latest
                return
            # the next page begins at the last change, for tasks may change places meanwhile
            page, self._since = (page + 1 if latest == self._since else 1), latest

    def _send(self, project: Project, pending: Sequence[Query], data: DataModule) -> None:
        """Make tasks of the queries that have none."""
        new = [query for query in pending if (query.key, query.fingerprint) not in self._tasks.keys() | self._sent]
        if new:
            project = self._found = self._with_classes(project, data.class_names)
        for start in range(0, len(new), SIZE):
            there = [(query, shown) for query in new[start : start + SIZE] if (shown := self._show(query, data))]
            if there:
                tasks = [as_task(project, query, shown) for query, shown in there]
                self.server.call("POST", f"/api/projects/{project.id}/import", tasks)
                self._sent |= {(query.key, query.fingerprint) for query, _ in there}

    def _show(self, query: Query, data: DataModule) -> Shown | None:
        """Return what a person sees of a sample; null where it is not there any more, or another one."""
        try:
            if (data.fingerprint(query.key) or "") == query.fingerprint:
                return data.show(query.key)
        except (ValueError, OSError) as error:
            self._tell(f"`{query.key}` cannot be shown in Label Studio: {error}")
        return None

    def _verdict(self, query: Query, names: Sequence[str]) -> Iterator[Answer]:
        """Yield what people said of a sample once enough have, what holds last."""
        assert self._found is not None
        tasks = self._tasks.get((query.key, query.fingerprint), {}).values()
        # whoever annotated twice meant the later one
        made = sorted((one for task in tasks for one in task["annotations"] or ()), key=lambda one: int(one["id"]))
        latest = {self._person(one): one for one in made}
        if not latest or len(latest) < max(int(task["overlap"] or 1) for task in tasks):
            return
        opinions = [as_answer(query, self._found.control, one, person) for person, one in latest.items()]
        for answer in opinions:
            if answer.label is not None and answer.label not in names:
                self._tell(
                    f"people chose `{answer.label}` in Label Studio, which is no class of this run: these answers "
                    "wait. Name it in `--classes`, or let people choose one of the run's."
                )
                return
        votes = Counter((answer.kind, answer.label) for answer in opinions)
        most = [said for said, count in votes.items() if count == max(votes.values())]
        yield from sorted(opinions, key=lambda answer: (answer.kind, answer.label) == most[0])
        if len(most) > 1:
            yield Answer(query.key, None, self.name, "unsure", query.fingerprint, source=self.name)

    def _person(self, annotation: dict[str, Any]) -> str:
        """Return who made an annotation: the e-mail address, if the token may read it."""
        who = annotation.get("completed_by")
        if isinstance(who, dict):
            return str(who.get("email") or f"user {who.get('id')}")[:255]
        number = int(who or 0)
        if number not in self._emails:
            try:
                users = self.server.call("GET", "/api/users")
            except ServerError as error:
                if error.status != 403:
                    raise
                users = []
            known = {int(user["id"]): str(user.get("email") or user.get("username"))[:255] for user in users}
            self._emails |= {number: f"user {number}"} | known
        return self._emails[number]


def labelling_config(kind: str, names: Sequence[str], captioned: bool = False) -> str:
    """Return a labelling interface: the sample, a choice of classes, and that one is unsure.

    Args:
        kind: Of the samples: `image`, `audio`, anything else is shown as text.
        names: Of the classes.
        captioned: Whether an image or sound has a text.

    Example:
        >>> print(labelling_config("image", ["cat", 'so "called"']))
        <View>
          <Image name="sample" value="$image"/>
          <Choices name="class" toName="sample" choice="single" showInLine="true">
            <Choice value="cat"/>
            <Choice value='so "called"'/>
          </Choices>
          <Choices name="unsure" toName="sample" choice="multiple">
            <Choice value="unsure"/>
          </Choices>
        </View>
    """
    tag, field = (TAGS[kind][0], kind) if kind in TAGS else ("Text", "text")
    return "\n".join(
        [
            "<View>",
            f'  <{tag} name="{OBJECT}" value="${field}"{MORE.get(kind, "")}/>',
            *([CAPTION] if captioned else []),
            f'  <Choices name="{CONTROL}" toName="{OBJECT}" choice="single" showInLine="true">',
            *(f"    <Choice value={quoteattr(name)}/>" for name in names),
            "  </Choices>",
            f'  <Choices name="{UNSURE}" toName="{OBJECT}" choice="multiple">',
            f'    <Choice value="{UNSURE}"/>',
            "  </Choices>",
            "</View>",
        ]
    )


def as_project(found: dict[str, Any]) -> Project:
    """Read the server's answer on a project.

    Raises:
        ServerError: If its labelling interface has no choice of classes.
    """
    for name, control in (found.get("parsed_label_config") or {}).items():
        if control["type"] == "Choices" and control["inputs"]:
            shown = control["inputs"][0]
            return Project(
                int(found["id"]), name, control["to_name"][0], shown["type"], shown["value"],
                tuple(control["labels"]), found["label_config"],
            )  # fmt: skip
    raise ServerError(
        f"project {found['id']} of Label Studio has no `Choices` in its labelling interface; add one with the run's "
        "classes, or give the title of a new project."
    )


def as_task(project: Project, query: Query, shown: Shown) -> dict[str, Any]:
    """Return a query as a task with the model's guess."""
    content = shown.content
    if isinstance(content, bytes):
        content = f"data:{TAGS[shown.kind][1]};base64,{base64.b64encode(content).decode()}"
    score = query.score if query.score is not None and math.isfinite(query.score) else None
    meta = {"key": query.key, "fingerprint": query.fingerprint, "round": query.round, "score": score}
    task: dict[str, Any] = {"data": {project.field: content, "key": query.key}, "meta": meta}
    if shown.caption is not None:
        task["data"]["caption"] = shown.caption
    if query.guess in project.labels:
        chosen = {
            "from_name": project.control, "to_name": project.object, "type": "choices",
            "value": {"choices": [query.guess]},
        }  # fmt: skip
        # Label Studio shows those of one version only, so all have the same
        task["predictions"] = [{"model_version": VERSION, "score": query.confidence or 0.0, "result": [chosen]}]
    return task


def as_answer(query: Query, control: str, annotation: dict[str, Any], person: str) -> Answer:
    """Return an annotation as an answer: `skip` where it was skipped, `unsure` where not one class was chosen."""
    results = annotation.get("result") or []
    chosen = [
        str(choice)
        for result in results
        if result.get("from_name") == control
        for choice in result["value"].get("choices", ())
    ]
    unsure = control != UNSURE and any(result.get("from_name") == UNSURE for result in results)
    kind: Kind = "class" if len(chosen) == 1 and not unsure else "unsure"
    if annotation.get("was_cancelled"):
        kind = "skip"
    took, when = annotation.get("lead_time"), annotation.get("updated_at")
    return Answer(
        query.key,
        chosen[0] if kind == "class" else None,
        person,
        kind,
        query.fingerprint,
        None if took is None else min(round(took * 1000), LONGEST),
        LabelStudio.name,
        answered_at=None if when is None else datetime.fromisoformat(when).astimezone(UTC).replace(tzinfo=None),
    )
