"""Why there is anyload: what parallel and abandoned loads do to a process, and that it does not.

Every scene is played by hand and, with the same loads, through anyload, each time in a process of
its own (`corruption.py`). The figures are printed at the end; to see them and nothing else::

    make frameworks ARGS="-k corruption"

By hand it is only held what comes about in every run, or nearly: such a scene has a few rounds to
show it. With anyload it is exact: no load is wrong, nothing is left changed. That is about loads,
and about the process afterwards. It is not about bystanders: while one load runs, or is stuck,
transformers itself has set the process's default dtype, and every other thread sees that. The
table tells for how many of its tensors a thread did that had nothing to do with loading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import corruption
import pytest
import subjects
from corruption import LOADS, Loop
from playing import play
from witness import LATER, REFUSED, RIGHT, Seen

ROUNDS = 5
"""How many processes may be tried until one by hand shows what it is to show."""

Figures = Callable[[str, str, Seen], None]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models of the scenes, made in a process of its own too."""
    directory = tmp_path_factory.mktemp("corruption")
    play(subjects.make_models, directory)
    return directory


@pytest.fixture(scope="module")
def figures(request: pytest.FixtureRequest) -> Iterator[Figures]:
    """Takes what was seen, and prints it all when the last scene is over."""
    rows: list[tuple[str, str, Seen]] = []
    yield lambda scene, how, seen: rows.append((scene, how, seen))
    plugins = request.config.pluginmanager
    terminal = plugins.get_plugin("terminalreporter")
    capture = plugins.get_plugin("capturemanager")
    assert terminal is not None
    assert capture is not None
    with capture.global_and_fixture_disabled():
        terminal.write_line("")
        for line in table(sorted(rows, key=lambda row: (SCENES.index(row[0]), row[1] != BY_HAND))):
            terminal.write_line(line)


SCENES = (
    *("BERT, tied weights", "GPT-2, tied weights", "mixed dtypes", "torch.export"),
    *("stuck, then fallback", "fallback crosses"),
)
BY_HAND = "by hand"


def table(rows: list[tuple[str, str, Seen]]) -> Iterator[str]:
    """Yield the figures, a line for each scene and way, and below what was wrong by hand."""
    form = "{:<22}{:<16}{:>6}{:>6}{:>9}{:>6}{:>11}{:>10}{:>11}{:>8}"
    yield form.format(
        *("scene", "how", "loads", "bad", "refused", "left", "later bad", "dtype"),
        *("bystander", "seconds"),
    )
    for scene, how, seen in rows:
        made = seen.meanwhile.total()
        other = f"{1 - seen.meanwhile['float32'] / made:.0%}" if made else "-"
        loads, later = seen.outcomes.total(), f"{seen.later_bad}/{seen.later.total()}"
        yield form.format(
            *(scene, how, loads, seen.bad, seen.outcomes[REFUSED], len(seen.left), later),
            *(seen.dtype, other, f"{seen.seconds:.1f}"),
        )
    for scene, how, seen in rows:
        for outcome, number in seen.outcomes.most_common():
            if outcome not in {RIGHT, REFUSED}:
                yield f"{scene}, {how}: {number} x {outcome}"


def by_hand(scene: Callable[[Loop | None], Seen], shows: Callable[[Seen], bool]) -> Seen:
    """Play a scene without anyload until it shows what it is to show."""
    for _ in range(ROUNDS):
        seen = scene(None)
        if shows(seen):
            return seen
    pytest.fail(f"not in {ROUNDS} rounds; the last one: {seen}")


def name_of(loop: Loop) -> str:
    return "uvloop" if loop[1].get("use_uvloop") else loop[0]


def with_anyload(scene: Callable[[Loop], Seen], loop: Loop, figures: Figures, name: str) -> Seen:
    """Play a scene with anyload: nothing is left changed, and every later load is right."""
    seen: Seen = scene(loop)
    figures(name, f"anyload, {name_of(loop)}", seen)
    assert seen.left == ()
    assert seen.dtype == "float32"
    assert set(seen.later) == {RIGHT}
    return seen


TIED = {
    "BERT, tied weights": (subjects.bert, "on meta, inference raises RuntimeError"),
    "GPT-2, tied weights": (subjects.gpt2, "on meta, wrong output"),
}
"""How to load them, and what they come to by hand. GPT-2 answers, and nothing raises."""


class TestTiedWeights:
    """Models whose output layer shares the weights of their embeddings, on four threads."""

    @pytest.mark.parametrize("name", TIED)
    def test_by_hand_the_process_is_broken_for_good(
        self, name: str, models: Path, figures: Figures
    ) -> None:
        """Loads are wrong, functions are left replaced, and later loads are wrong too."""
        make, wrong = TIED[name]
        seen = by_hand(
            partial(play, corruption.parallel, make, models),
            lambda seen: bool(seen.outcomes[wrong] and seen.later_bad),
        )
        figures(name, BY_HAND, seen)
        assert "PreTrainedModel.tie_weights" in seen.left

    @pytest.mark.parametrize("name", TIED)
    def test_with_anyload_all_are_right(
        self, name: str, models: Path, anyio_backend: Loop, figures: Figures
    ) -> None:
        """So are those that are loaded by hand afterwards."""
        scene = partial(play, corruption.parallel, TIED[name][0], models)
        seen = with_anyload(scene, anyio_backend, figures, name)
        assert seen.outcomes == {RIGHT: LOADS}


class TestMixedDtypes:
    """bfloat16, float32, float16 and float32 in turn, on four threads."""

    name = "mixed dtypes"

    def test_by_hand_models_come_in_other_dtypes(self, models: Path, figures: Figures) -> None:
        """Their parameters are of dtypes that other threads have asked for."""
        scene = partial(play, corruption.parallel, subjects.mixed, models)
        seen = by_hand(scene, lambda seen: seen.bad > 0)
        figures(self.name, BY_HAND, seen)
        assert any(" for " in outcome for outcome in seen.outcomes)

    def test_with_anyload_each_has_its_own(
        self, models: Path, anyio_backend: Loop, figures: Figures
    ) -> None:
        """And the default dtype is afterwards what it was."""
        scene = partial(play, corruption.parallel, subjects.mixed, models)
        seen = with_anyload(scene, anyio_backend, figures, self.name)
        assert seen.outcomes == {RIGHT: LOADS}


class TestExport:
    """Programs of ``torch.export``, on four threads."""

    name = "torch.export"

    def test_by_hand_loads_raise(self, models: Path, figures: Figures) -> None:
        """There is one deserializer for the process, and it is asserted that there is none yet."""
        scene = partial(play, corruption.parallel, subjects.exported, models)
        seen = by_hand(scene, lambda seen: seen.bad > 0)
        figures(self.name, BY_HAND, seen)
        assert seen.outcomes["AssertionError: _CURRENT_DESERIALIZER is already set"] > 0

    def test_with_anyload_all_load(
        self, models: Path, anyio_backend: Loop, figures: Figures
    ) -> None:
        """One at a time."""
        scene = partial(play, corruption.parallel, subjects.exported, models)
        seen = with_anyload(scene, anyio_backend, figures, self.name)
        assert seen.outcomes == {RIGHT: LOADS}


class TestStuck:
    """A load that hangs inside its constructor, past its limit, and what is loaded instead."""

    stuck, crossed = "stuck, then fallback", "fallback crosses"

    def test_by_hand_no_fallback_is_right(self, models: Path, figures: Figures) -> None:
        """Giving up on a thread and going on is no way out: it is in the middle of its patches."""
        seen = by_hand(partial(play, corruption.stuck, models), lambda seen: seen.bad == LOADS)
        figures(self.stuck, BY_HAND, seen)

    def test_with_anyload_the_fallback_is_refused_while_the_thread_is_there(
        self, models: Path, anyio_backend: Loop, figures: Figures
    ) -> None:
        """It says what it waited for; when the thread has ended, loads are right again."""
        scene = partial(play, corruption.stuck, models)
        seen = with_anyload(scene, anyio_backend, figures, self.stuck)
        assert seen.outcomes == {REFUSED: LOADS}
        assert seen.later.total() == 2 * LATER  # with anyload, then by hand

    def test_by_hand_a_thread_that_ends_late_breaks_the_process(
        self, models: Path, figures: Figures
    ) -> None:
        """The fallback puts back, last of all, what the first load had put there."""
        scene = partial(play, corruption.crossed, models)
        seen = by_hand(scene, lambda seen: bool(seen.bad == LOADS and seen.left))
        figures(self.crossed, BY_HAND, seen)
        assert {"the default dtype", "PreTrainedModel.tie_weights"} <= set(seen.left)
        assert seen.dtype == "bfloat16"

    def test_with_anyload_the_fallback_begins_when_the_thread_has_ended(
        self, models: Path, anyio_backend: Loop, figures: Figures
    ) -> None:
        """A hundred fallbacks wait for it, and every one is right."""
        scene = partial(play, corruption.crossed, models)
        seen = with_anyload(scene, anyio_backend, figures, self.crossed)
        assert seen.outcomes == {RIGHT: LOADS}
