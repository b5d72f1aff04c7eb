"""The page of a run: whole in itself, escaped, honest about its counts, and drawn right."""

import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

import pytest
from PIL import Image

import unfade
from recorded import picture
from unfade.images.files import encode, write_png
from unfade.jobs.journal import Counts, Entry
from unfade.report.curves import BOTTOM, LEFT, RIGHT, TOP, Axis, Curve, draw, finite, moving_mean
from unfade.report.document import (
    WORDS,
    Face,
    Report,
    WholePhoto,
    count_line,
    data_uri,
    most_changed_first,
    render,
    score_table,
)  # fmt: skip
from unfade.report.listings import Line, Listing, named, notes, undone
from unfade.report.pictures import SIDES, SMALLEST_SIDE, Picture, address_of, change_between, picture_of, side_for

PNG, JPEG = encode(picture(8, 8, seed=1)[0]), encode(picture(8, 8, seed=2)[0], "JPEG")
FULL, SMALL = Picture(PNG, "faces/one.png", 128, 128), Picture(JPEG)
COLUMNS = ("input", "pre-trained", "target", "adapted", "truth")
VOID = {"meta", "img", "input", "link", "br", "hr", "path"}

REPORT = Report(
    title="Holiday",
    summary="It went well.",
    counts={"found": 5, "done": 2, "skipped": 1, "failed": 1, "no_face": 1},
    scores=[
        {"restorer": "pre-trained", "psnr": 20.0, "ssim": 0.61},
        {"restorer": "adapted", "psnr": 21.5, "ssim": 0.6},
    ],
    curves=[Curve("loss", [(0, 1.0), (10, 0.5), (20, 0.25)])],
    settings={"seed": 7, "targets": {"start": 150, "betas": (0.9, 0.99), "none": None, "empty": {}}},
    faces=[
        Face(
            "one.png",
            {"input": FULL, "pre-trained": FULL, "target": SMALL, "adapted": SMALL, "truth": FULL},
            "a note",
            4.26,
        ),
        Face("two.png", {"input": FULL, "pre-trained": FULL, "adapted": FULL}, change=0.2),
    ],
    photos=[WholePhoto("holiday/1.jpg", FULL, replace(SMALL, width=30, height=20), "restored/1.jpg", ["was CMYK"])],
    lists=[Listing("Failed", [Line("cut.png", "is cut off")]), Listing("Films", [Line("a.mp4", "", "a.mp4")], "Look.")],
    files={"the journal": "journal.jsonl"},
    warnings=["Only two photos."],
)
EMPTY = Report("Nothing", "Nothing was found.", {"found": 0}, [], [], {}, [])


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps texts and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]) and data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag and wanted.items() <= attrs.items()]


def path_points(svg: str, kind: str) -> list[list[tuple[float, float]]]:
    """The subpaths of the path of that class, in units of the picture."""
    [d] = re.findall(rf'class="{kind}" d="([^"]*)"', svg)
    subpaths = [sub.removesuffix("h0").split("L") for sub in d.split("M")[1:]]
    return [[(float(x), float(y)) for x, y in (point.split() for point in sub)] for sub in subpaths]


@pytest.mark.parametrize("report", [REPORT, EMPTY], ids=["full", "empty"])
def test_page_is_balanced_and_reaches_for_no_network(report: Report) -> None:
    html = render(report)
    page = Page(html)
    assert "http://" not in html.replace("http-equiv", "")
    assert "https://" not in html
    assert not re.search(r"@import|<link|<iframe", html)
    assert set(re.findall(r"url\((.{5})", html)) <= {"data:"}
    addresses = [value for _, attrs in page.elements for key, value in attrs.items() if key in ("src", "href")]
    assert all(urlsplit(address).scheme in ("", "data") and not address.startswith("/") for address in addresses)
    assert not [key for _, attrs in page.elements for key in attrs if key in ("srcset", "action", "data", "poster")]
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data: file: 'self';")


def test_links_lead_to_parts_that_are_there() -> None:
    for report in (REPORT, EMPTY):
        page = Page(render(report))
        parts = {a["href"].removeprefix("#") for a in page.all("a") if a.get("href", "").startswith("#")}
        assert parts <= {a.get("id") for _, a in page.elements}


def test_files_are_linked_to() -> None:
    links = {a.get("href") for a in Page(render(REPORT)).all("a")}
    assert links >= {"journal.jsonl", "restored/1.jpg", "a.mp4", "faces/one.png"}


def test_page_says_that_details_are_guesses() -> None:
    assert "never evidence of what a person looked like" in render(EMPTY)


def test_everything_is_on_the_page() -> None:
    texts = " ".join(Page(render(REPORT)).texts)
    for expected in ("Holiday", "It went well.", "Only two photos.", "a note", "cut.png", "is cut off", "0.9, 0.99"):
        assert expected in texts
    for expected in ("was CMYK", "Failed (1)", "Films (1)", "Look.", "the journal", "changed by 4.3 of 255 levels"):
        assert expected in texts
    assert "changed by less than 1 of 255 levels" in texts


def test_photos_come_before_scores_and_these_before_faces() -> None:
    ids = [attrs["id"] for _, attrs in Page(render(REPORT)).elements if "id" in attrs]
    assert [i for i in ids if i in ("photos", "scores", "faces")] == ["photos", "scores", "faces"]


def test_columns_are_explained_where_they_are_shown() -> None:
    texts = Page(render(REPORT)).texts
    assert "It is not the truth, and not a result." in WORDS["target"]
    assert [texts[texts.index(WORDS[word]) - 1] for word in COLUMNS] == list(COLUMNS)
    assert WORDS["supervised"] not in texts


def test_most_changed_first_and_equal_ones_as_they_came() -> None:
    faces = [Face(name, {}, change=change) for name, change in (("a", 1.0), ("b", None), ("c", 3.0), ("d", 1.0))]
    assert [face.name for face in most_changed_first(faces)] == ["c", "a", "d", "b"]


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>\"'&"
    face = Face(evil, {evil: FULL, "adapted": FULL}, evil)
    photo = WholePhoto(evil, FULL, FULL, "x", [evil])
    lists = [Listing(evil, [Line(evil, evil, "x")], evil)]
    curves = [Curve(evil, [(0, 1)])]
    report = Report(evil, evil, {"found": 0}, [{evil: evil}], curves, {evil: {evil: evil}}, [face], [photo], lists)
    report = replace(report, warnings=[evil], files={evil: "x"})
    html = render(report)
    page = Page(html)
    assert "<script>alert" not in html
    assert page.texts.count(evil) >= 12
    assert page.all("img", alt=f"{evil}, {evil}")
    assert len(page.all("article", **{"data-name": evil})) == 2
    assert any(attrs["aria-label"].startswith(evil) for attrs in page.all("svg"))


def test_counts_are_shown_as_a_sum() -> None:
    line = "5 found = 2 done + 1 skipped + 1 failed + 1 without a face"
    assert count_line(REPORT.counts) == line
    assert line in Page(render(REPORT)).texts
    assert count_line({"found": 1, "done": 1}) == "1 found = 1 done + 0 skipped + 0 failed + 0 without a face"


@pytest.mark.parametrize("counts", [{"found": 3, "done": 2}, {"done": 1}, {"found": 1, "lost": 1}, {}])
def test_counts_that_do_not_add_up_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="every item counts once"):
        render(replace(REPORT, counts=counts))


def test_score_table_says_what_has_changed_and_whether_for_the_better() -> None:
    head, rows = score_table(
        [
            {"method": "pre-trained", "psnr": 20.0, "ssim": 0.61, "feature_distance": 0.5, "lpips": 0.2, "faces": 24},
            {"method": "adapted", "psnr": 21.5, "ssim": 0.60, "feature_distance": 0.4, "lpips": 0.20001, "faces": 24},
        ]
    )
    assert head == ["method", "PSNR (dB) ↑", "SSIM ↑", "feature distance ↓", "LPIPS ↓", "faces"]
    assert [cell.text for cell in rows[0]] == ["pre-trained", "20.00", "0.6100", "0.5000", "0.2000", "24"]
    assert [cell.text for cell in rows[2]] == ["change", "+1.50", "−0.0100", "−0.1000", "±0", ""]
    assert [cell.verdict for cell in rows[2]] == ["", "better", "worse", "better", "equal", ""]


def test_score_table_without_a_pair_or_with_gaps() -> None:
    assert score_table([]) == ([], [])
    assert len(score_table([{"method": "pre-trained", "psnr": 20.0}])[1]) == 1
    rows = score_table(
        [{"method": "pre-trained", "psnr": math.nan}, {"method": "adapted", "psnr": math.inf, "x": 1.5}]
    )[1]
    assert [[cell.text for cell in row] for row in rows] == [
        ["pre-trained", "–", "–"],
        ["adapted", "∞", "1.5"],
        ["change", "", ""],
    ]


def test_strips_keep_their_order_and_missing_columns_are_left_out() -> None:
    page = Page(render(REPORT))
    shown = [(attrs["alt"], attrs["loading"]) for attrs in page.all("img") if "data-column" in attrs]
    names = ["holiday/1.jpg, photo", "holiday/1.jpg, result"]
    names += [f"one.png, {column}" for column in COLUMNS]
    names += [f"two.png, {column}" for column in ("input", "pre-trained", "adapted")]
    assert shown == [(name, "lazy") for name in names]
    assert page.all("div", style="--columns: 5")


def selected(html: str) -> list[str]:
    return re.findall(r"<option selected>([^<]*)<", html)


def test_slider_starts_with_what_came_and_the_result_or_with_what_there_is() -> None:
    assert selected(render(REPORT)) == ["input", "adapted"]
    assert Page(render(REPORT)).all("input", type="range")
    others = [Face("x", {"photo": FULL, "result": FULL, "truth": FULL})]
    assert selected(render(replace(REPORT, faces=others))) == ["photo", "truth"]
    mapped = [Face("x", {"face": FULL, "result": FULL, "trust": FULL})]
    assert selected(render(replace(REPORT, faces=mapped))) == ["face", "result"]
    assert not Page(render(replace(REPORT, faces=[Face("x", {"photo": FULL})]))).all("select")


def test_small_pictures_are_in_the_page_and_full_ones_beside_it() -> None:
    assert data_uri(PNG).startswith("data:image/png;base64,iVBOR")
    assert data_uri(JPEG).startswith("data:image/jpeg;base64,/9j/")
    page = Page(render(REPORT))
    (full, small) = (page.all("img", alt=f"one.png, {column}")[0] for column in ("input", "target"))
    assert (full["src"], full["style"]) == ("faces/one.png", f"background-image: url({data_uri(PNG)})")
    assert small["src"] == data_uri(JPEG)
    assert "style" not in small
    assert page.all("article", style="--ratio: 30 / 20")
    with pytest.raises(ValueError, match="PNG, JPEG or WebP"):
        render(replace(REPORT, faces=[Face("x", {"input": Picture(b"GIF89a")})]))


@pytest.mark.parametrize(
    "name", ['a "b" c.png', "a\nb.png", "1%20#2?.png", "c:d.png", "sub/\udcff.png", "x'y&<z>.png", "über.png"]
)
def test_addresses_survive_any_name(tmp_path: Path, name: str) -> None:
    address = address_of(tmp_path / "faces" / name, tmp_path)
    parts = urlsplit(address)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
    assert re.fullmatch(r"[\w./~%-]+", address, re.ASCII)
    assert unquote_to_bytes(parts.path) == f"faces/{name}".encode(errors="surrogateescape")
    assert address_of(tmp_path / "a" / "b.png", tmp_path / "c") == "../a/b.png"


def test_a_picture_of_a_file_is_small_and_knows_the_full_size(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(200, 300, seed=1)[0])
    (wide,) = [picture_of(tmp_path / "a.png", tmp_path, 96)]
    assert (wide.address, wide.width, wide.height) == ("a.png", 300, 200)
    with Image.open(io.BytesIO(wide.small)) as small:
        assert (small.format, small.size) == ("WEBP", (96, 64))
    assert data_uri(wide.small).startswith("data:image/webp;base64,UklGR")


def test_change_is_in_levels(tmp_path: Path) -> None:
    for name, level in (("a", 100), ("b", 107)):
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / f"{name}.png")
    assert change_between(tmp_path / "a.png", tmp_path / "b.png") == pytest.approx(7, abs=1e-4)
    assert change_between(tmp_path / "a.png", tmp_path / "a.png") == 0


def test_more_pictures_are_smaller() -> None:
    assert [side_for(n) for n in (0, SIDES[0][0], SIDES[0][0] + 1, 10**6)] == [128, 128, 96, SMALLEST_SIDE]


def test_lists_of_what_is_not_done_add_up_to_the_counts() -> None:
    kinds = {"a": "done", "b": "failed", "c": "no_face", "d": "failed", "e": "skipped"}
    entries = [
        Entry("restored", name, kind, reason=f"about {name}", notes=("2 faces",)) for name, kind in kinds.items()
    ]
    counts, lists = Counts.of(entries), {listing.title: listing for listing in undone(entries)}
    sizes = {title: len(listing.lines) for title, listing in lists.items()}
    assert sizes == {"Failed": counts.failed, "Skipped": counts.skipped, "Without a face": counts.no_face}
    assert lists["Failed"].lines == [Line("b", "about b"), Line("d", "about d")]
    assert [listing.title for listing in undone(entries[1:2], ": ours")] == ["Failed: ours"]
    assert undone(entries[:1]) == notes(entries) == named("Left unchanged", [], "") == []
    (noted,) = notes([replace(entries[0], notes=("1 face", "was CMYK"))])
    assert noted.lines == [Line("a", "was CMYK")]


def test_a_thousand_photos_and_faces_are_under_ten_megabytes(tmp_path: Path) -> None:
    """With every column that an adaptation can have, all of them clean faces, which are rich in detail."""
    side = side_for(1000 * (5 + 2))
    clean = sorted(Path(unfade.__file__).with_name("samples").joinpath("truth").iterdir())[: len(COLUMNS)]
    shown = [picture_of(path, tmp_path, side) for path in clean]
    faces = [Face(f"holiday__{i:04d}_00.png", dict(zip(COLUMNS, shown, strict=True)), change=i) for i in range(1000)]
    photos = [WholePhoto(f"holiday/{i:04d}.jpg", shown[0], shown[1], f"restored/{i:04d}.jpg") for i in range(1000)]
    size = len(render(replace(REPORT, faces=faces, photos=photos)).encode())
    assert 2e6 < size < 10e6


def test_many_faces_get_a_search_field() -> None:
    many = [Face(f"{i}.png", {"pre-trained": FULL, "adapted": FULL}) for i in range(200)]
    assert Page(render(replace(REPORT, faces=many))).all("input", type="search")
    assert Page(render(replace(REPORT, photos=REPORT.photos * 13))).all("input", **{"data-of": "photos"})
    assert not Page(render(REPORT)).all("input", type="search")


def test_curve_goes_through_its_points() -> None:
    svg = draw(Curve("loss", [(0, 2.0), (10, 1.5), (30, 1.0)]))
    [line] = path_points(svg, "mean")
    assert [x for x, _ in line] == pytest.approx([LEFT, LEFT + (RIGHT - LEFT) / 3, RIGHT], abs=0.05)
    heights = [(BOTTOM - y) / (BOTTOM - TOP) for _, y in line]
    assert heights == pytest.approx([1.04 / 1.08, 0.5, 0.04 / 1.08], abs=1e-3)
    assert "from 2 to 1, lowest 1" in svg
    Page(svg)


def test_curve_over_many_orders_is_logarithmic() -> None:
    svg = draw(Curve("loss", [(0, 100.0), (1, 1.0), (2, 0.01)]))
    [line] = path_points(svg, "mean")
    assert "logarithmic" in svg
    assert line[0][1] + line[2][1] == pytest.approx(2 * line[1][1], abs=0.2)
    assert "logarithmic" not in draw(Curve("loss", [(0, 100.0), (1, -1.0)]))


def test_long_curve_is_smoothed_and_thinned_but_keeps_its_spikes() -> None:
    points = [(i, 1.0 + (i % 2) + (5.0 if i == 7777 else 0.0)) for i in range(20_000)]
    svg = draw(Curve("loss", points))
    [raw], [mean] = path_points(svg, "raw"), path_points(svg, "mean")
    assert len(raw) <= 1200
    assert min(y for _, y in raw) == pytest.approx(TOP + (BOTTOM - TOP) * 0.04 / 1.08, abs=0.1)
    assert [value for _, value in moving_mean(points)[:100]] == pytest.approx([1.5] * 100, abs=0.02)
    assert len(mean) <= 600
    assert len(svg) < 60_000


def test_moving_mean_keeps_a_constant_and_leaves_short_curves_alone() -> None:
    assert {value for _, value in moving_mean([(i, 0.3) for i in range(50)])} == {0.3}
    assert moving_mean([(i, 0.3) for i in range(19)]) == []


def test_values_that_are_not_finite_leave_gaps_and_are_counted() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, math.inf), (5, 1.0), (6, 2.0)]
    svg = draw(Curve("loss", points))
    assert [len(line) for line in path_points(svg, "mean")] == [2, 2]
    assert [len(line) for line in path_points(svg, "dot")] == [1]
    assert "2 not finite" in svg
    assert not re.search(r"nan|inf\b", svg.replace("not finite", ""))
    assert len(finite(points)) == 5


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(5, 0.25)], [(0, 0.0), (1, 0.0)], [(3, 1.0), (3, 2.0)]])
def test_odd_curves_are_drawn(points: list[tuple[float, float]]) -> None:
    html = render(replace(EMPTY, curves=[Curve("odd", points)]))
    Page(html)
    assert ("nothing recorded" in html) == (not finite(points))
    assert "0.25 at step 5" in html or points != [(5, 0.25)]


@pytest.mark.parametrize(
    ("low", "high"), [(0, 20_000), (0.09, 0.19), (20.3, 21.9), (-3, 3), (1e-9, 3e-9), (50, 150), (0, 1)]
)
def test_axis_has_a_few_round_numbers_inside(low: float, high: float) -> None:
    ticks = Axis(low, high, LEFT, RIGHT).ticks()
    assert 3 <= len(ticks) <= 8
    assert low - 1e-9 * (high - low) <= ticks[0] < ticks[-1] <= high + 1e-9 * (high - low)


@pytest.mark.parametrize(("low", "high"), [(0.04, 1.05), (1e-6, 200), (3, 90), (1e-300, 1e300)])
def test_logarithmic_axis_too(low: float, high: float) -> None:
    ticks = Axis(low, high, BOTTOM, TOP, log=True).ticks()
    assert 3 <= len(ticks) <= 8
    assert low <= ticks[0] < ticks[-1] <= high
