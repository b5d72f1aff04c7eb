"""The page of a run: whole in itself, escaped, honest about its counts, and drawn right."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from recorded import picture
from unfade.images.files import encode
from unfade.report.curves import BOTTOM, LEFT, RIGHT, TOP, Axis, Curve, draw, finite, moving_mean
from unfade.report.page import Face, Report, count_line, data_uri, render, score_table

PNG, JPEG = encode(picture(8, 8, seed=1)[0]), encode(picture(8, 8, seed=2)[0], "JPEG")
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
    failures=[("cut.png", "is cut off")],
    faces=[
        Face("one.png", {"input": PNG, "pre-trained": PNG, "target": JPEG, "adapted": JPEG, "truth": PNG}, "a note"),
        Face("two.png", {"input": PNG, "pre-trained": PNG, "adapted": PNG}),
    ],
    warnings=["Only two photos."],
)
EMPTY = Report("Nothing", "Nothing was found.", {"found": 0}, [], [], {}, [], [])


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
def test_page_is_balanced_and_needs_nothing_from_outside(report: Report) -> None:
    html = render(report)
    page = Page(html)
    assert "http://" not in html.replace("http-equiv", "")
    assert "https://" not in html
    assert not re.search(r"url\(|@import|<link|<iframe", html)
    addresses = [value for _, attrs in page.elements for key, value in attrs.items() if key in ("src", "href")]
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert not [key for _, attrs in page.elements for key in attrs if key in ("srcset", "action", "data", "poster")]


def test_links_lead_to_parts_that_are_there() -> None:
    for report in (REPORT, EMPTY):
        page = Page(render(report))
        assert {a["href"].removeprefix("#") for a in page.all("a")} <= {a.get("id") for _, a in page.elements}


def test_page_says_that_details_are_guesses() -> None:
    assert "never evidence of what a person looked like" in render(EMPTY)


def test_everything_is_on_the_page() -> None:
    texts = " ".join(Page(render(REPORT)).texts)
    for expected in ("Holiday", "It went well.", "Only two photos.", "a note", "cut.png", "is cut off", "0.9, 0.99"):
        assert expected in texts


def test_names_are_escaped() -> None:
    evil = "<script>alert(1)</script>\"'&"
    face = Face(evil, {evil: PNG, "adapted": PNG}, evil)
    report = Report(
        evil,
        evil,
        {"found": 0},
        [{evil: evil}],
        [Curve(evil, [(0, 1)])],
        {evil: {evil: evil}},
        [(evil, evil)],
        [face],
        [evil],
    )
    html = render(report)
    page = Page(html)
    assert "<script>alert" not in html
    assert page.texts.count(evil) >= 8
    assert page.all("img", alt=f"{evil}, {evil}")
    assert page.all("article", **{"data-name": evil})
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
    names = [f"one.png, {column}" for column in ("input", "pre-trained", "target", "adapted", "truth")]
    names += [f"two.png, {column}" for column in ("input", "pre-trained", "adapted")]
    assert shown == [(name, "lazy") for name in names]
    assert page.all("div", style="--columns: 5")


def selected(html: str) -> list[str]:
    return re.findall(r"<option selected>([^<]*)<", html)


def test_slider_starts_with_pre_trained_and_adapted_or_with_what_there_is() -> None:
    assert selected(render(REPORT)) == ["pre-trained", "adapted"]
    assert Page(render(REPORT)).all("input", type="range")
    others = [Face("x", {"photo": PNG, "result": PNG, "truth": PNG})]
    assert selected(render(replace(REPORT, faces=others))) == ["photo", "truth"]
    assert not Page(render(replace(REPORT, faces=[Face("x", {"photo": PNG})]))).all("select")


def test_pictures_are_embedded_as_they_are() -> None:
    assert data_uri(PNG).startswith("data:image/png;base64,iVBOR")
    assert data_uri(JPEG).startswith("data:image/jpeg;base64,/9j/")
    with pytest.raises(ValueError, match="PNG or JPEG"):
        render(replace(REPORT, faces=[Face("x", {"input": b"GIF89a"})]))


def test_many_faces_get_a_search_field() -> None:
    many = [Face(f"{i}.png", {"pre-trained": PNG, "adapted": PNG}) for i in range(200)]
    assert Page(render(replace(REPORT, faces=many))).all("input", type="search")
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
