"""Data show themselves in a notebook: every modality as a person sees it, and what a file says is never code."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from every_modality import MODALITIES, write

from ssl_lightning.active import PoolDataModule
from ssl_lightning.data import Digits
from ssl_lightning.data.gallery import Gallery
from ssl_lightning.data.samples import Shown
from ssl_lightning.labelling import Query

SEEN = {"images": "img", "sound": "audio", "text": "blockquote", "rows": "table", "images with text": "img"}


class Tags(HTMLParser):
    """Collects what is opened and closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.depth: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.opened.append(tag)
        if tag != "img":
            self.depth.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.depth.pop() == tag


@pytest.mark.parametrize("name", SEEN)
def test_every_modality_shows_itself(name: str, tmp_path: Path) -> None:
    data = MODALITIES[name].data(write(name, tmp_path, 24))
    assert "not loaded yet" in data._repr_html_()
    with pytest.raises(ValueError, match="call its `setup\\(\\)` first"):
        data.gallery()
    data.setup("fit")
    html = data._repr_html_()
    tags = Tags(html)
    assert not tags.depth
    assert tags.opened.count("figure") == 8
    assert SEEN[name] in tags.opened
    assert "blue, green, red" in html
    labelled = data.train_samples.targets[data.train_indices]
    assert f"{len(labelled)} samples, {int((labelled >= 0).sum())} labelled" in html


def test_samples_are_chosen_by_count_position_or_key() -> None:
    data = Digits()
    data.setup("fit")
    keys = data.train_samples.keys
    assert data.gallery([5, keys[2]]).keys == [keys[5], keys[2]]
    some = data.gallery(7).keys
    assert len(set(some)) == 7
    assert set(some) <= {keys[place] for place in data.train_indices.tolist()}
    assert data.gallery([5]).notes == [str(int(data.train_samples.targets[5]))]
    with pytest.raises(ValueError, match="`key=none` is no sample"):
        data.gallery(["none"])


def test_what_files_say_is_text() -> None:
    class Bad:
        def show(self, key: str) -> Shown:
            return Shown("text", "<script>alert(1)</script>\n\nand </div> more " * 40, "<b>caption</b>")

    html = Gallery(Bad(), ['"><img src=x onerror=alert(1)>'], ["<i>class</i>"])._repr_html_()
    tags = Tags(html)
    assert not tags.depth
    assert set(tags.opened) == {"div", "figure", "blockquote", "figcaption"}


def test_a_query_shows_answer_guess_and_score() -> None:
    pool = PoolDataModule(Digits(), initial=3, seed=0)
    assert "not loaded yet" in pool._repr_html_()
    pool.prepare_data()
    pool.setup("fit")
    assert pool.gallery(-1).notes == [query.label for query in pool.queries]
    html = pool._repr_html_()
    assert not Tags(html).depth
    assert "<td>3</td>" in html
    key = pool.keys[int(pool.unlabelled[0])]
    asked = [Query(key, None, 0.25, 0, guess="7"), Query("a file that was removed since")]
    pool.store.add_round(0, "Margin", 0, asked, None)
    assert pool.gallery(0).notes == ["no answer yet, guessed 7, score 0.25"]
