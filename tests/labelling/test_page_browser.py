"""The labelling page in a real browser: by keyboard, by mouse, on a phone, by two people, over broken connections."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_run import HOSTILE, ask, names, new_run, page_of, png, wav
from PIL import Image
from sklearn.datasets import load_digits
from support import begin, command

from ssl_lightning.labelling.records import Query
from ssl_lightning.labelling.shown import keep_sight
from ssl_lightning.labelling.store import LabelStore

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: `pip install playwright`")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine's path")
WAIT = 60_000  # milliseconds, on a machine that is busy with other tests, too
# What is between the page and its server, for answers: `open`; `shut`, none arrives; `hold`, each is kept until it is
# let `on` or `away`; `lose`, each arrives, and what the server says does not. It stays as it is over a reload.
GATE = """(() => {
  const { fetch } = window, beacon = navigator.sendBeacon.bind(navigator), held = [];
  const lost = () => Promise.reject(new TypeError("lost"));
  const is = () => sessionStorage.getItem("gate") ?? "open";
  window.gate = { held, lost: 0, set: (mode) => sessionStorage.setItem("gate", mode) };
  navigator.sendBeacon = (path, body) => path !== "/api/answer" || is() === "open" ? beacon(path, body) : true;
  window.fetch = async (path, options) => {
    const mode = path === "/api/answer" ? is() : "open";
    if (mode === "shut") return lost();
    if (mode === "hold") await new Promise((on, away) => held.push({ on, away: () => away(new TypeError("lost")) }));
    const response = await fetch(path, options);
    if (mode !== "lose") return response;
    gate.lost += (await response.json()).saved.length;
    gate.set("open");
    return lost();
  };
})()"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """Somebody with a browser of their own, whose requests and errors are noted."""

    def __init__(self, browser: Any, url: str, name: str | None = "Ann", **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
        self.context.set_default_timeout(WAIT)
        if name is not None:
            self.context.add_init_script(f"localStorage.setItem('labelling:annotator', {name!r})")
        self.context.add_init_script(GATE)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.wrong: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda told: self.wrong.append(told.text) if told.type == "error" else None)
        self.page.on("dialog", self.asked)
        self.page.goto(url)

    def asked(self, dialog: Any) -> None:
        """Leave a page that asks whether to leave it; any other dialog is a defect."""
        if dialog.type != "beforeunload":
            self.wrong.append(f"a dialog: {dialog.type}")
        dialog.accept()

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def wait(self, condition: str) -> None:
        """Wait for a condition; the page's own policy forbids Playwright's way to do so."""
        until = time.monotonic() + WAIT / 1000
        while not self.page.evaluate(f"() => Boolean({condition})"):
            assert time.monotonic() < until, condition
            self.page.wait_for_timeout(20)

    @property
    def key(self) -> str:
        """Of the sample that is shown."""
        return str(self.page.locator("#sample .key").inner_text())

    def see(self, key: str) -> None:
        """Wait until a sample is shown, and its picture with it."""
        self.page.locator("#sample .key", has_text=key).wait_for()
        self.wait("[...document.querySelectorAll('#sample img')].every((one) => one.complete)")

    def saved(self) -> None:
        """Wait until nothing is unsaved."""
        self.wait("document.getElementById('unsaved').hidden")

    def title(self, text: str) -> None:
        self.page.get_by_role("heading", name=text).wait_for()


@pytest.fixture
def visit(chromium: Any) -> Iterator[Any]:
    some: list[Visitor] = []

    def come(url: str, *given: Any, **options: Any) -> Visitor:
        some.append(Visitor(chromium, url, *given, **options))
        return some[-1]

    yield come
    for visitor in some:
        visitor.context.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def store(folder: Path) -> LabelStore:
    return new_run(folder)


def labels(store: LabelStore) -> dict[str, str | None]:
    return {query.key: query.label for query in store.queries() if query.kind}


def test_a_batch_by_keyboard_alone(folder: Path, store: LabelStore, visit: Any) -> None:
    """Name, classes by number, by typing, a new one, skip, unsure, undo, help; and nothing comes from elsewhere."""
    ask(folder, store, names(8))
    with page_of(folder) as url:
        ann = visit(url, None)
        ann.page.get_by_role("textbox", name="Your name").wait_for()
        ann.press("Enter")
        assert ann.page.get_by_text("Please give a name.").is_visible()
        ann.page.keyboard.type("Ann")
        ann.press("Enter")
        ann.see("000.png")
        assert "token" not in ann.page.url
        ann.press("2")
        ann.see("001.png")
        ann.press("/")
        ann.page.keyboard.type("BIR")
        ann.press("Enter")
        ann.see("002.png")
        ann.press("c")
        ann.page.keyboard.type("a")  # cat first
        ann.press("ArrowDown", "ArrowUp", "Enter")
        ann.see("003.png")
        ann.press("n")
        ann.page.keyboard.type("grüne Eule")
        ann.press("Enter")
        ann.see("004.png")
        ann.press("s")
        ann.see("005.png")
        ann.press("u")
        ann.see("006.png")
        ann.press("4")  # the new class has the next number
        ann.see("007.png")
        ann.saved()
        ann.press("z")
        ann.see("006.png")
        ann.press("Control+z")
        ann.see("005.png")
        ann.press("1")
        ann.see("006.png")
        ann.press("1")
        ann.see("007.png")
        ann.press("?")
        assert ann.page.get_by_role("heading", name="Keys").is_visible()
        ann.press("Escape", "3")
        ann.title("Thank you")
        ann.saved()
        assert labels(store) == {
            "000.png": "dog", "001.png": "bird", "002.png": "cat", "003.png": "grüne Eule", "004.png": None,
            "005.png": "cat", "006.png": "cat", "007.png": "bird",
        }  # fmt: skip
        assert {query.kind for query in store.queries() if query.key == "004.png"} == {"skip"}
        assert all(event.milliseconds is not None for event in store.history() if event.kind == "class")
        assert ann.wrong == []
        assert {request.split("/")[2] for request in ann.requests} == {url.split("/")[2]}


def test_many_in_the_grid_by_mouse_and_by_keys(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(12))
    with page_of(folder) as url:
        ann = visit(url)
        ann.see("000.png")
        ann.page.get_by_role("button", name="Grid").click()
        cards = ann.page.locator("#grid").get_by_role("option")
        cards.nth(11).wait_for()
        cards.nth(1).click()
        cards.nth(4).click(modifiers=["Shift"])
        cards.nth(2).click()  # but not this one
        assert ann.page.get_by_text("3 samples selected").is_visible()
        ann.page.locator("#classes").get_by_role("option", name="dog").click()
        ann.wait("document.querySelectorAll('#grid .card').length === 9")
        ann.saved()
        assert labels(store) == dict.fromkeys(["001.png", "003.png", "004.png"], "dog")
        ann.page.get_by_role("button", name="Undo").click()
        ann.wait("document.querySelectorAll('#grid .card').length === 12")
        assert labels(store) == {}
        cards.nth(0).focus()
        ann.press("Home", "Space", "Shift+ArrowRight", "Shift+ArrowRight", "3")
        ann.wait("document.querySelectorAll('#grid .card').length === 9")
        ann.press("a", "1")
        ann.title("Thank you")
        ann.saved()
        assert sorted(labels(store).values()) == ["bird"] * 3 + ["cat"] * 9  # type: ignore[type-var]
        assert ann.wrong == []


def test_on_a_phone(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(3), guess="dog", confidence=0.7)
    with page_of(folder) as url:
        phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
        ann = visit(url, **phone)
        ann.see("000.png")
        assert ann.page.evaluate("document.documentElement.scrollWidth") <= 390
        for node in [*ann.page.locator(".class").all(), *ann.page.locator(".actions button").all()]:
            box = node.bounding_box()
            assert box["height"] >= 44
            assert box["width"] >= 44
        cat = ann.page.locator("#classes").get_by_role("option", name="cat")
        assert cat.bounding_box()["y"] < 780  # to be reached without scrolling, above the bar
        cat.tap()
        ann.see("001.png")
        ann.page.get_by_role("button", name="Skip").tap()
        ann.see("002.png")
        ann.page.get_by_role("button", name="Undo").tap()
        ann.see("001.png")
        ann.page.get_by_role("button", name="New class").tap()
        ann.page.get_by_role("textbox", name="Its name").fill("CAT")  # that is one already
        ann.page.get_by_role("button", name="Add it").tap()
        ann.see("002.png")
        ann.saved()
        assert labels(store) == {"000.png": "cat", "001.png": "cat"}
        assert store.class_names() == ["cat", "dog", "bird"]


def test_reload_in_the_middle_gives_the_same_samples(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(60))
    with page_of(folder) as url:
        ann, ben = visit(url), visit(url, "Ben")
        ann.see("000.png")
        first = ben.key
        ann.press("1")
        ann.see("001.png")
        ann.press("2")
        ann.see("002.png")
        ann.page.reload()
        ann.see("002.png")
        ben.page.reload()
        ben.see(first)
        ann.saved()
        assert labels(store) == {"000.png": "cat", "001.png": "dog"}


def test_two_people_do_nothing_twice(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(40))
    with page_of(folder) as url:
        people = [visit(url), visit(url, "Ben")]
        for person in people:
            person.page.locator("#sample .key").wait_for()
        until = time.monotonic() + 120
        while len(labels(store)) < 40:
            assert time.monotonic() < until
            for number, person in enumerate(people):
                if person.page.locator("#sample").is_visible():
                    person.wait("[...document.querySelectorAll('#sample img')].every((one) => one.complete)")
                    person.press(str(number + 1))
        for person in people:
            person.title("Thank you")
            assert person.wrong == []
        assert len(labels(store)) == len(store.history()) == 40
        assert {event.annotator for event in store.history()} == {"Ann", "Ben"}
        assert all(event.label == {"Ann": "cat", "Ben": "dog"}[event.annotator] for event in store.history())


def test_who_comes_later_gets_a_share_of_a_small_batch(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(6))
    with page_of(folder) as url:
        ann = visit(url)
        ann.see("000.png")
        ben = visit(url, "Ben")
        ben.title("Others have the rest")
        ben.see("003.png")
        ben.press("2")
        ben.saved()
        assert ann.key == "000.png"
        ann.press("1")
        ann.saved()
        assert labels(store) == {"000.png": "cat", "003.png": "dog"}


def test_hostile_names_are_inert(folder: Path, store: LabelStore, visit: Any) -> None:
    store.add_classes([HOSTILE, "javascript:alert(1)"])
    keep_sight(folder, HOSTILE, "f", "image", png(1), HOSTILE)
    keep_sight(folder, "text", "", "text", HOSTILE)
    keep_sight(folder, "row", "", "row", f'{{"{HOSTILE}": "{HOSTILE}"}}')
    near = [(HOSTILE, "f", HOSTILE), ("text", "", HOSTILE)]
    asked = [
        Query(HOSTILE, fingerprint="f", guess=HOSTILE, confidence=0.5, neighbours=near), Query("text"), Query("row"),
    ]  # fmt: skip
    store.add_round(0, HOSTILE, 0, asked, None)
    with page_of(folder) as url:
        ann = visit(url, HOSTILE)
        ann.see(HOSTILE)
        for number in range(3):
            assert ann.page.locator("img[src='x']").count() == 0
            assert HOSTILE in ann.page.locator("main").inner_text()
            if number == 0:
                ann.press("g")
                ann.page.locator("#grid .card").first.wait_for()
                assert ann.page.locator("img[src='x']").count() == 0
                ann.press("g")
                ann.see(HOSTILE)
            ann.press("4")
            ann.page.wait_for_timeout(50)
        ann.title("Thank you")
        ann.saved()
        assert set(labels(store).values()) == {HOSTILE}
        ann.press("h")
        ann.page.locator("#lines li").nth(2).wait_for()
        assert ann.page.locator("img[src='x']").count() == 0
        assert HOSTILE in ann.page.locator("#lines").inner_text()
        assert ann.wrong == []
        assert {request.split("/")[2] for request in ann.requests} == {url.split("/")[2]}


def test_a_lost_connection_loses_nothing(folder: Path, store: LabelStore, visit: Any) -> None:
    """Answers stay and are said to be unsaved until the server has them, over a reload of the page, too."""
    ask(folder, store, names(6))
    with page_of(folder) as url:
        ann = visit(url)
        ann.see("000.png")
        ann.page.evaluate("gate.set('shut')")
        ann.press("1")
        ann.see("001.png")
        ann.press("2")
        ann.see("002.png")
        ann.press("3")
        ann.see("003.png")
        ann.press("z")  # what was not sent yet is undone here
        ann.see("002.png")
        ann.page.get_by_text("2 answers not saved yet: kept here").wait_for()
        assert labels(store) == {}
        ann.page.reload()
        ann.see("002.png")
        assert ann.page.locator("#unsaved").inner_text() == "2 answers not saved yet"
        ann.page.evaluate("gate.set('lose')")  # committed, but the answer is never heard of
        ann.saved()
        assert ann.page.evaluate("gate.lost") == 2
        assert labels(store) == {"000.png": "cat", "001.png": "dog"}
        assert len(store.history()) == 2
        assert ann.page.locator("#trouble").is_hidden()


def test_undo_waits_for_what_is_on_its_way(folder: Path, store: LabelStore, visit: Any) -> None:
    """Whether the server has an answer is not known while it travels; what is answered after the undo stays."""
    ask(folder, store, names(4))

    def travels(number: int) -> None:
        ann.wait(f"gate.held.length === {number}")

    with page_of(folder) as url:
        ann = visit(url)
        ann.see("000.png")
        ann.page.evaluate("gate.set('hold')")
        ann.press("1")
        ann.see("001.png")
        travels(1)
        ann.press("z", "2")
        ann.see("002.png")
        ann.page.evaluate("gate.held[0].on()")
        ann.see("000.png")
        travels(2)
        ann.page.evaluate("gate.held[1].on()")
        ann.saved()
        assert labels(store) == {"001.png": "dog"}
        ann.press("1")
        ann.see("002.png")
        travels(3)
        ann.press("z", "z")
        ann.page.evaluate("gate.held[2].away()")
        ann.see("001.png")
        assert labels(store) == {}


def test_what_somebody_else_answered_stays_and_is_told(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(2))
    with page_of(folder) as url:
        ann = visit(url)
        ann.see("000.png")
        store.answer("000.png", "bird", "Ben")
        ann.press("1")
        ann.page.locator("#notice", has_text='000.png was answered by Ben meanwhile: "bird" stays').wait_for()
        assert labels(store) == {"000.png": "bird"}


def test_history_second_look_and_corrections(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(3), number=-1)
    for name in names(3):
        store.answer(name, "cat", "Ben")
    store.begin(0)
    doubts = [{"key": name, "fingerprint": "f", "label": "cat", "guess": "dog", "confidence": 0.9} for name in names(2)]
    store.add_round(0, "Entropy", 0, [Query("late", fingerprint="f")], None, doubts=doubts)
    with page_of(folder) as url:
        ann = visit(url)
        ann.page.get_by_role("button", name="Likely wrong: 2").click()
        lines = ann.page.locator("#lines li")
        lines.nth(1).wait_for()
        lines.nth(0).get_by_role("button", name="Keep cat").click()
        lines.nth(0).get_by_role("button", name="Make it dog").click()
        ann.saved()
        ann.page.get_by_role("button", name="History", exact=True).last.click()
        ann.page.locator("#lines li").nth(4).wait_for()
        old = ann.page.locator("#lines li", has_text="002.png")
        old.get_by_role("button", name="Change").click()
        ann.page.get_by_text('You are changing an earlier answer. It is labelled "cat".').wait_for()
        ann.see("002.png")
        ann.press("3")
        ann.see("late")  # and back to what is asked
        ann.saved()
        assert labels(store) == {"000.png": "cat", "001.png": "dog", "002.png": "bird"}
        assert [event.annotator for event in store.history(key="000.png")] == ["Ben", "Ann"]
        assert ann.wrong == []


def test_from_the_first_question_to_the_end(folder: Path, store: LabelStore, visit: Any) -> None:
    """The page goes on by itself: nothing asked, a batch, go on without the rest, a second batch, finished."""
    with page_of(folder) as url:
        ann = visit(url)
        ann.title("Nothing is asked yet")
        ask(folder, store, names(3))
        ann.see("000.png")
        ann.press("1")
        ann.see("001.png")
        ann.saved()
        ann.page.get_by_role("button", name="Go on without the rest").click()
        ann.page.get_by_text("1 of 3 are answered.").wait_for()
        ann.page.get_by_role("button", name="Keep labelling").click()
        assert not store.rounds()[0].closed
        ann.page.get_by_role("button", name="Go on without the rest").click()
        ann.page.get_by_role("button", name="Go on", exact=True).click()
        ann.page.get_by_text("The run goes on.").wait_for()
        assert store.rounds()[0].closed
        ann.press("1", "1")
        ann.title("Thank you")
        ask(folder, store, names(1, 10), number=1)
        ann.see("010.png")
        store.finish()
        ann.title("The run is finished")
        assert ann.wrong == []


def test_sound_text_row_zoom_and_dark(folder: Path, store: LabelStore, visit: Any) -> None:
    keep_sight(folder, "i", "", "image", png(1, 200), "a caption")
    keep_sight(folder, "a", "", "audio", wav())
    keep_sight(folder, "t", "", "text", "a text\nof two lines")
    keep_sight(folder, "r", "", "row", '{"radius": 3.5, "site": "left"}')
    store.add_round(0, "Entropy", 0, [Query(key) for key in ("i", "a", "t", "r", "nothing")], None)
    with page_of(folder) as url:
        ann = visit(url, color_scheme="dark")
        ann.page.locator("#sample img").wait_for()
        ann.wait("document.querySelector('#sample img').offsetWidth > 200")  # as large as there is room
        assert ann.page.get_by_text("a caption").is_visible()
        wide = ann.page.locator("#sample img").bounding_box()["width"]
        ann.press("+")
        assert ann.page.locator("#sample img").bounding_box()["width"] == pytest.approx(2 * wide, abs=3)
        ann.page.locator("#sample img").click()
        assert ann.page.locator("#sample img").bounding_box()["width"] == pytest.approx(wide, abs=3)
        back = "getComputedStyle(document.documentElement).backgroundColor"
        assert ann.page.evaluate(back) == "rgb(18, 22, 28)"
        ann.press("d")
        assert ann.page.evaluate(back) == "rgb(244, 246, 248)"
        ann.page.reload()
        assert ann.page.evaluate(back) == "rgb(244, 246, 248)"
        ann.page.locator("#sample img").wait_for()
        ann.wait("document.querySelector('#sample img').complete")
        ann.press("1")
        ann.wait("document.querySelector('#sample audio')?.duration === 1")
        ann.press("p")
        ann.wait("!document.querySelector('#sample audio').paused || document.querySelector('#sample audio').ended")
        ann.press("1")
        assert ann.page.locator("#sample .text").inner_text() == "a text\nof two lines"
        ann.press("1")
        assert ann.page.get_by_role("row", name="radius 3.5").is_visible()
        ann.press("1")
        assert ann.page.get_by_text("Nothing can be shown of this sample").is_visible()
        assert ann.wrong == []


def test_a_link_from_another_site_lets_in(folder: Path, store: LabelStore, visit: Any, tmp_path: Path) -> None:
    """A strict cookie does not go with a redirect that another site began."""
    ask(folder, store, names(1))
    with page_of(folder) as url:
        ann = visit("about:blank")
        ann.context.route("http://elsewhere.test/", lambda route: route.fulfill(
            body=f'<a href="{url}">label</a>', content_type="text/html"))  # fmt: skip
        ann.page.goto("http://elsewhere.test/")
        ann.page.get_by_text("label").click()
        ann.see("000.png")


def test_every_control_has_a_name_and_the_focus_is_seen(folder: Path, store: LabelStore, visit: Any) -> None:
    ask(folder, store, names(2))
    with page_of(folder) as url:
        ann = visit(url)
        ann.see("000.png")
        nameless = """[...document.querySelectorAll('button, input, [role=option], [role=listbox], dialog, progress')]
            .filter((one) => !(one.textContent.trim() || one.ariaLabel || one.labels?.length))
            .map((one) => one.outerHTML)"""
        assert ann.page.evaluate(nameless) == []
        reached = set()
        for _ in range(16):
            ann.press("Tab")
            found = ann.page.evaluate("""() => { const one = document.activeElement, style = getComputedStyle(one);
                const seen = one === document.body || style.outlineStyle !== 'none';
                return [one.id || one.className || one.tagName, seen]; }""")
            assert found[1], found
            reached.add(found[0])
        assert {"jump", "view", "open-history", "find", "new", "skip", "unsure", "undo"} <= reached
        ann.page.locator("#skip").focus()
        ann.press("Enter")
        ann.see("001.png")
        assert ann.page.get_by_role("status").inner_text() == "skipped."


RUN = [
    "active", "--oracle", "Human", "--oracle.port", "0", "--classes", "zero,one", "--data", "ImageFolder",
    "--data.image_size", "8", "--data.channels", "1", "--model", "Classifier", "--model.backbone", "ConvNet",
    "--model.backbone.width", "8", "--strategy", "Entropy", "--strategy.query_size", "5", "--initial", "6",
    "--rounds", "1", "--steps_per_epoch", "5", "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
    "--trainer.devices", "1", "--test_share", "0.2",
]  # fmt: skip


def test_a_run_trains_on_exactly_what_was_pressed(tmp_path: Path, visit: Any) -> None:
    """From the command to the last model: the run opens its page, waits, and its models see what the keys said."""
    digits = load_digits(n_class=2)
    truth = {f"{number:03d}.png": ("zero", "one")[int(digits.target[number])] for number in range(40)}
    (tmp_path / "digits").mkdir()
    for number, key in enumerate(truth):
        Image.fromarray((digits.images[number] * 15.9).astype("uint8")).save(tmp_path / "digits" / key)
    folder, log = tmp_path / "run", tmp_path / "log"
    run = begin(command(*RUN, "--data.root", "digits", "--folder", "run"), tmp_path, log)
    try:
        until = time.monotonic() + 120
        while not (folder / "page.json").exists():
            assert run.exitcode is None, log.read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        ann = visit(json.loads((folder / "page.json").read_text())["url"])
        pressed: dict[str, str] = {}
        while run.exitcode is None:
            assert time.monotonic() < until
            shown = ann.page.locator("#sample .key")
            if len(pressed) == 11 or not shown.is_visible() or (key := shown.inner_text()) in pressed:
                time.sleep(0.05)
                continue
            ann.see(key)
            ann.press(str(1 + ("zero", "one").index(truth[key])))
            pressed[key] = truth[key]
        assert run.exitcode == 0, log.read_text()
    finally:
        run.kill()
        run.join()
    store = LabelStore(f"sqlite:///{folder / 'labels.sqlite'}")
    assert labels(store) == pressed
    assert len(pressed) == 11
    rounds = store.rounds()
    for number in (0, 1):  # each model trained on the answers to the queries before it, less those that test
        then = store.queries(rounds[number].upto)
        trained = [query for query in then if query.label is not None and query.part == "train"]
        assert rounds[number].metrics is not None
        assert len(trained) == rounds[number].metrics["labelled"]
        assert {query.round for query in trained} == set(range(-1, number))
    assert ann.wrong == [] or all("ERR_CONNECTION_REFUSED" in text for text in ann.wrong)  # the page ends with the run
