"""The ladder as a picture: valid, self-contained, complete, and with nothing over anything else."""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twbench.model.states import Side, TcpState
from twbench.wire.ladder import Call, Crossing, EndState, Fate, Ladder, Pause, Segment
from twbench.wire.palette import FATE_INKS, STATE_COLOURS
from twbench.wire.svg import draw_svg

SVG = "{http://www.w3.org/2000/svg}"
CLIENT, SERVER = Side.CLIENT, Side.SERVER


def states(client: TcpState, server: TcpState) -> dict[Side, EndState]:
    counts = EndState(state=TcpState.TIME_WAIT, timer=3, expires_s=59.9)
    return {
        side: counts if state is TcpState.TIME_WAIT else EndState(state=state)
        for side, state in ((CLIENT, client), (SERVER, server))
    }


def ladder_of_every_fate() -> Ladder:
    then = states(TcpState.TIME_WAIT, TcpState.LAST_ACK)
    packets = [
        Crossing(
            t_s=0.001 * frame,
            origin=origin,
            segment=Segment(label="PSH+ACK", seq=frame, ack=1, length=1448),
            fate=fate,
            frame=frame,
            note="drop client→server ACK after server FIN, once" * (frame % 2),
            states=then,
        )
        for frame, (fate, origin) in enumerate([(f, s) for f in Fate for s in Side], start=1)
    ]
    return Ladder(
        title="Every fate",
        sentence="One packet of each kind, both ways.",
        steps=(
            Call(t_s=0, side=CLIENT, text="close()", states=then),
            *packets,
            Call(t_s=1, side=SERVER, text="recv()", result="0 bytes: end of file", states=then),
            Pause(
                t_s=62,
                text="after 2MSL",
                states=states(TcpState.CLOSE, TcpState.CLOSE),
            ),
        ),
    )


def picture(ladder: Ladder, *, times: bool = True) -> ET.Element:
    return ET.fromstring(draw_svg(ladder, times=times))  # noqa: S314 - our own


def words(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def test_everything_of_the_ladder_is_in_the_picture() -> None:
    told = words(picture(ladder_of_every_fate()))
    for expected in (
        *("Every fate", "One packet of each kind, both ways.", "client", "server", "close()"),
        *("recv() = 0 bytes: end of file", "PSH+ACK seq=3 ack=1 len=1448", "after 2MSL"),
        *("TIME_WAIT 59.9 s", "LAST_ACK", "CLOSED", "dropped", "held", "released", "injected"),
        *("drop client→server ACK after server FIN, once", "62.000 s"),
    ):
        assert expected in told


def test_picture_can_be_told_to_those_who_do_not_see_it() -> None:
    root = picture(ladder_of_every_fate())
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == "Every fate"
    assert root.findtext(f"{SVG}desc") == (
        "One packet of each kind, both ways. Client: TIME_WAIT, CLOSED. Server: LAST_ACK, CLOSED."
    )


def test_picture_needs_nothing_from_elsewhere() -> None:
    drawn = draw_svg(ladder_of_every_fate())
    assert re.findall(r"https?://[^\"]*", drawn) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"<script|<image|href|url\(|@import|@font-face", drawn)


def test_dark_page_has_a_colour_for_whatever_the_light_one_colours() -> None:
    style = picture(ladder_of_every_fate()).findtext(f"{SVG}style") or ""
    light, dark = style.split("@media (prefers-color-scheme: dark) {")
    colours = re.compile(r"^(\.ladder [^{]*) \{ (?:fill|stroke): #", re.MULTILINE)
    lines = {name for name in colours.findall(light) if name.startswith(".ladder .bar.")}
    assert len(lines) == len(STATE_COLOURS)
    assert set(colours.findall(dark)) == set(colours.findall(light)) - lines


@pytest.mark.parametrize("state", TcpState, ids=lambda state: state.name)
def test_every_state_has_its_colours(state: TcpState) -> None:
    assert EndState(state=state).name in STATE_COLOURS


def test_every_fate_has_its_ink() -> None:
    assert set(FATE_INKS) == set(Fate)


def test_end_is_drawn_in_the_colour_of_its_state_until_that_changes() -> None:
    root = picture(
        Ladder(
            title="",
            sentence="",
            steps=(
                Call(
                    t_s=0,
                    side=CLIENT,
                    text="close()",
                    states=states(TcpState.FIN_WAIT1, TcpState.CLOSE),
                ),
                Pause(t_s=1, text="", states=states(TcpState.TIME_WAIT, TcpState.CLOSE)),
                Pause(t_s=9, text="", states=states(TcpState.TIME_WAIT, TcpState.CLOSE)),
            ),
        )
    )
    bars = [rect for rect in root.iter(f"{SVG}rect") if "bar" in rect.get("class", "")]
    assert [bar.get("class") for bar in bars] == ["bar FIN_WAIT_1", "bar TIME_WAIT", "bar CLOSED"]
    first, second = bars[:2]
    assert float(first.attrib["y"]) + float(first.attrib["height"]) == float(second.attrib["y"])


def test_text_is_escaped() -> None:
    text = "<b>&amp;\"'"
    step = Call(
        t_s=0,
        side=CLIENT,
        text=text,
        result="",
        states=states(TcpState.CLOSE, TcpState.CLOSE),
    )
    root = picture(Ladder(title=text, sentence=text, steps=(step,)))
    assert words(root).count(text) == 3


any_text = st.text(max_size=90)
ends = st.builds(
    EndState, state=st.sampled_from(TcpState), timer=st.integers(0, 4), expires_s=st.floats(0, 120)
)
both_ends = st.fixed_dictionaries({CLIENT: ends, SERVER: ends})
moments = {"t_s": st.floats(0, 99_999), "states": both_ends}
segments = st.builds(
    Segment,
    label=st.sampled_from(["SYN", "PSH+ACK", "ICMP 3/13", "FIN+PSH+ACK+ECE+CWR"]),
    seq=st.integers(0, 2**32 - 1),
    ack=st.none() | st.integers(0, 2**32 - 1),
    length=st.integers(0, 65535),
)
sides = st.sampled_from(Side)
steps = st.one_of(
    st.builds(Call, side=sides, text=any_text, result=any_text, **moments),
    st.builds(Pause, text=any_text, **moments),
    st.builds(
        Crossing,
        origin=sides,
        segment=segments,
        fate=st.sampled_from(Fate),
        frame=st.integers(1),
        note=any_text,
        **moments,
    ),
)
ladders = st.builds(
    Ladder, title=any_text, sentence=any_text, steps=st.lists(steps, max_size=10).map(tuple)
)


@given(ladders)
def test_any_ladder_is_valid_xml_with_no_text_over_another_or_outside(ladder: Ladder) -> None:
    root = picture(ladder)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = list(text_boxes(root))
    for text, (left, top, right, bottom) in boxes:
        assert left >= 0, text
        assert top >= 0, text
        assert right <= width, text
        assert bottom <= height, text
    for (one, first), (other, second) in combinations(boxes, 2):
        assert apart(first, second), (one, other)


@given(ladders, st.floats(0, 99_999), st.floats(0, 120))
def test_picture_without_times_is_the_same_at_any_time(
    ladder: Ladder, t_s: float, expires_s: float
) -> None:
    later = replace(
        ladder,
        steps=tuple(
            replace(
                step,
                t_s=t_s,
                states={side: replace(it, expires_s=expires_s) for side, it in step.states.items()},
            )
            for step in ladder.steps
        ),
    )
    assert draw_svg(later, times=False) == draw_svg(ladder, times=False)


Box = tuple[float, float, float, float]

# pixels and, in em, the mean advance of DejaVu's letters: the widest among the fonts in use
SIZES = {
    "title": (22, 0.62),
    "code time": (12, 0.602),
    "code": (13, 0.602),
    "note": (12, 0.59),
    "": (14, 0.59),
}


def text_boxes(root: ET.Element) -> Iterator[tuple[str, Box]]:
    """Yield every text with the rectangle that it takes."""
    for text in root.iter(f"{SVG}text"):
        kind = text.get("class", "")
        size, em = next(sizes for name, sizes in SIZES.items() if kind.startswith(name))
        wide = len(text.text or "") * size * em
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        left = x - {"middle": wide / 2, "end": wide}.get(text.get("text-anchor", ""), 0)
        yield text.text or "", (left, y - size * 0.76, left + wide, y + size * 0.22)


def apart(first: Box, second: Box) -> bool:
    return (
        first[2] <= second[0]
        or second[2] <= first[0]
        or first[3] <= second[1]
        or second[3] <= first[1]
    )
