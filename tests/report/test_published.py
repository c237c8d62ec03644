from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report.report_cases import shown_lines

from interlace.errors import InputError
from interlace.evaluation.benchmarks.catalogue import PUBLISHED, published_name
from interlace.evaluation.scores.result import Score
from interlace.params.whole import Params, read_params
from interlace.report.facts.published import (
    COLUMNS,
    Beside,
    beside_published,
    difference_notes,
    published_rows,
    published_table,
    read_published,
    retention_beside,
    speedup_beside,
)
from interlace.report.facts.setting import DOMAIN_AWARE, setting_differences
from interlace.report.facts.speed import PhaseTiming, Speed

ROOT = Path(__file__).parents[2]
ROWS = read_published(ROOT / "data/published.csv")


def params(model: str = "Qwen/Qwen3-VL-8B-Instruct", longest: int = 16384, **more: Any) -> Params:
    given = {"model": {"id": model}, "data": {"id": "a/b"}}
    return Params.model_validate(given | {"evaluate": {"max_new_tokens": longest}} | more)


@pytest.mark.parametrize(
    ("run", "ratio", "models", "published"),
    [
        (
            params(),
            0.25,
            ["dense", "tuned", "dense_ft", "pruned"],
            {"dense": ("5", 85.7), "tuned": ("5", 72.3), "dense-ft": ("6", 82.9)},
        ),
        (params("/models/Qwen3-VL-8B-Instruct/"), 0.25, ["dense"], {"dense": ("5", 85.7)}),
        (params(longest=50), 0.25, ["dense"], {"dense": ("6", 69.9)}),
        (params(longest=300), 0.25, ["dense"], {"dense": ("5", 85.7)}),
        (params(longest=50), 0.25, ["tuned"], {"tuned": ("5", 72.3)}),
        (params("data/demo/model"), 0.25, ["tuned"], {}),
        (params("Qwen/Qwen3-VL-30B-A3B-Instruct"), 0.25, ["tuned"], {}),
        (params(method="sleb"), 0.25, ["tuned"], {}),
        (params(), 0.2, ["tuned"], {}),
    ],
)
def test_scores_of_the_same_model_method_and_ratio_are_paired_by_length_if_they_can_be(
    run: Params, ratio: float, models: list[str], published: dict[str, tuple[str, float]]
) -> None:
    score = Score(score=80, standard_error=1.0, n=100, category="c")
    beside = beside_published({model: {"AI2D": score} for model in models}, run, ratio, ROWS)
    assert {row.model: (row.source, row.published) for row in beside} == {
        model: (f"2511.19676, table {table}", value) for model, (table, value) in published.items()
    }


@pytest.mark.parametrize(("ours", "agrees"), [(82.0, True), (79.1, False), (90.0, False)])
def test_agreement_allows_for_chance_on_both_sides(ours: float, agrees: bool) -> None:
    assert Beside("dense", "AI2D", ours, 1.0, 82.0, "s").agrees is agrees
    assert Beside("dense", "AI2D", ours, None, 82.0, "s").agrees is None
    assert Beside("dense", "AI2D", ours, 1.0, 82.0, "s", differences=("a",)).agrees is None


SUMMARY: dict[str, Any] = {
    "retention_tuned": 85.0,
    "retention_tuned_low": 83.0,
    "retention_tuned_high": 87.0,
    "retention_tuned_of_dense_ft": 80.0,
    "retention_tuned_of_dense_ft_low": 79.0,
    "retention_tuned_of_dense_ft_high": 81.0,
} | {f"retention_tuned{of}/{name}": 90.0 for of in ("", "_of_dense_ft") for name in PUBLISHED}


def test_retention_is_beside_that_of_the_same_reference() -> None:
    given = params(data={"id": "a/b", "fraction": 0.03})
    beside = {
        (one.quantity, one.source): (one.ours, one.published)
        for one in retention_beside(SUMMARY, given, 0.25, ROWS)
    }
    assert beside == {
        ("of dense", "model-card"): (85.0, 86.1),
        ("of dense", "2511.19676, table 8"): (85.0, 86.7),
        ("of dense-ft", "2511.19676, table 7"): (80.0, 88.9),
    }


def test_retention_over_other_benchmarks_is_not_compared() -> None:
    fewer = {name: value for name, value in SUMMARY.items() if not name.endswith("/POPE")}
    assert retention_beside(fewer, params(), 0.25, ROWS) == []
    assert retention_beside(SUMMARY, params(method="sleb"), 0.15, ROWS) == []
    by_benchmark = retention_beside(fewer, params(), 0.15, ROWS)
    assert {one.benchmark for one in by_benchmark} == set(PUBLISHED) - {"POPE"}


def test_the_first_token_of_a_benchmark_is_beside_table_4() -> None:
    timing = PhaseTiming("AI2D", 12.0, 10.0, speedup=1.2, low=1.19, high=1.21, ideal=1.2)
    unsure = replace(timing, speedup=None)
    timings = {"AI2D": timing, "POPE": unsure, "made_up": timing}
    speed = Speed({}, pairs=1, device="a GPU", benchmarks=timings)
    shaped = params(ttft={"shapes": ["AI2D", "POPE"]})
    assert speedup_beside(speed, params(), 0.25, ROWS) == []
    (found,) = speedup_beside(speed, shaped, 0.25, ROWS)
    assert (found.benchmark, found.published, found.agrees) == ("AI2D", 1.21, True)
    assert speedup_beside(speed, shaped, 0.3, ROWS) == []


PROFILE = read_params(ROOT / "profiles/qwen3-vl-8b.yaml")
PROMPT = "prompt: lmms-eval's here, which asks for the answer directly; VLMEvalKit's there, .*"
SAMPLING = "sampling: greedy here; temperature 0.7.*"
SHORT = "length: answers of at most 50 tokens here, 16,384 there"
FLOAT32 = "scores: cosines in float32 here, in bfloat16 there"
PUBLISHED_SETTING = [PROMPT, SAMPLING, SHORT, FLOAT32]  # what is left with the profile


def row_of(paper: str, method: str, benchmark: str = "AI2D", cot: str = "on") -> dict[str, str]:
    (first, *_) = (
        row
        for row in ROWS
        if (row["paper"], row["method"], row["benchmark"], row["cot"])
        == (paper, method, benchmark, cot)
    )
    return first


def changed(**sections: Any) -> Params:
    values = PROFILE.model_dump()
    for name, value in sections.items():
        values[name] = values[name] | value if isinstance(value, dict) else value
    return Params.model_validate(values)


@pytest.mark.parametrize(
    ("run", "method", "benchmark", "expected"),
    [
        (PROFILE, "interlace", "AI2D", PUBLISHED_SETTING),
        (PROFILE, "dense", "AI2D", PUBLISHED_SETTING[:3]),
        (PROFILE, "dense-ft", "AI2D", PUBLISHED_SETTING[:3]),
        (PROFILE, "random", "AI2D", PUBLISHED_SETTING[:3]),
        (changed(evaluate={"max_new_tokens": 16384}), "dense", "AI2D", [PROMPT, SAMPLING]),
        (PROFILE, "dense", "ScienceQA", ["subset of ScienceQA: all questions here, .*"]),
        (PROFILE, "dense", "MMBench", ["subset of MMBench: dev here, dev V1.1 there"]),
        (PROFILE, "dense", "POPE", ["metric of POPE: accuracy here, F1 there"]),
        (PROFILE, "dense", "OCRBench", ["images of OCRBench: .* at least 102,400 pixels there"]),
        (changed(evaluate={"answers": "reasoning"}), "dense", "AI2D", []),
        (changed(evaluate={"answers": "reasoning"}), "dense", "POPE-F1", []),
        (changed(evaluate={"answers": "reasoning"}), "dense", "POPE", ["metric of POPE: .*"]),
        (
            changed(evaluate={"answers": "reasoning", "max_new_tokens": 99}),
            "dense",
            "AI2D",
            ["length: answers of at most 99 tokens here, 16,384 there"],
        ),
        (changed(evaluate={"limit": 9}), "dense", "AI2D", ["subset: the first 9 rows .*"]),
        (changed(evaluate={"max_pixels": 9}), "dense", "AI2D", ["images of benchmarks: .*"]),
        (
            changed(collect={"mode": "residual"}),
            "interlace",
            "AI2D",
            ["scores: collect.mode = residual here, reference there"],
        ),
        (
            changed(measure={"max_pixels": 50176}),
            "interlace",
            "AI2D",
            ["scores: .* uncapped there"],
        ),
        (
            changed(select={"protect": "auto"}),
            "interlace",
            "AI2D",
            [
                "protected layers: the first 3, the last 0 and those around attention sinks"
                " here, the first 0 and the last 0 there"
            ],
        ),
        (
            changed(select={"protect": [0, 4]}),
            "interlace",
            "AI2D",
            [r"protected layers: \[0, 4\] here, the first 0 and the last 0 there"],
        ),
        (changed(select={"rounds": 2}), "interlace", "AI2D", ["rounds: 2 here, 1 there"]),
        (
            changed(select={"candidates": 2}),
            "interlace",
            "AI2D",
            ["choice: the best of several plans after healing here, the method's own plan there"],
        ),
        (
            changed(data={"id": "/home/x/rows"}),
            "dense-ft",
            "AI2D",
            ["tuning data: 100% of rows here, 1% of FineVision there"],
        ),
        (changed(data={"fraction": 0.03}), "interlace", "AI2D", ["tuning data: 3% of .* 1% of .*"]),
        (
            changed(data={"subsets": ["a"]}),
            "interlace",
            "AI2D",
            ["tuning data: .* in part here,.*"],
        ),
        (
            changed(finetune={"also": []}),
            "interlace",
            "AI2D",
            [r"tuning: finetune.also = \[\] here, \[lm_head\] there"],
        ),
        (
            changed(finetune={"batch_size": 8}),
            "dense-ft",
            "AI2D",
            ["tuning: finetune.batch_size = 8 here, 32 there"],
        ),
        (
            changed(heal={"local_steps": 8}),
            "interlace",
            "AI2D",
            ["tuning: heal.local_steps = 8 .*"],
        ),
    ],
)
def test_what_differs_from_a_published_score_is_said_in_plain_words(
    run: Params, method: str, benchmark: str, expected: list[str]
) -> None:
    row = row_of("2511.19676", method, published_name(benchmark))
    always = [text for text in PUBLISHED_SETTING if text != FLOAT32 or method == "interlace"]
    if run.evaluate.longest > 50:
        always.remove(SHORT)
    if run.evaluate.answers == "reasoning":
        always = [text for text in always if text not in (PROMPT, SAMPLING)]
    left = [*dict.fromkeys([*always, *expected])]
    for text in setting_differences(row, run, [benchmark]):
        (pattern,) = (pattern for pattern in left if re.fullmatch(pattern, text))
        left.remove(pattern)
    assert not left


@pytest.mark.parametrize(
    ("longest", "table", "dense"), [("auto", "5", 85.7), (50, "6", 69.9)], ids=str
)
def test_answers_as_published_stand_beside_both_of_its_lengths(
    longest: int | str, table: str, dense: float
) -> None:
    run = changed(evaluate={"answers": "reasoning", "max_new_tokens": longest})
    score = Score(score=80, standard_error=1.0, n=100, category="c")
    names = ("AI2D", "POPE", "POPE-F1", "made_up")
    beside = beside_published({"dense": dict.fromkeys(names, score)}, run, 0.25, ROWS)
    assert [(one.benchmark, len(one.differences)) for one in beside] == [
        ("AI2D", 0),
        ("POPE", 1),
        ("POPE-F1", 0),
    ]
    assert (beside[0].source, beside[0].published) == (f"2511.19676, table {table}", dense)


def test_the_twelve_as_published_have_no_difference_in_answers() -> None:
    variants = {"POPE-F1", "MMBench-V1.1", "ScienceQA-IMG", "OCRBench-Enlarged"}
    names = [name for name in PUBLISHED if name not in map(published_name, variants)]
    summary = SUMMARY | {f"retention_tuned/{name}": 90.0 for name in (*names, *variants)}
    summary = {
        name: value
        for name, value in summary.items()
        if name.partition("/")[2] not in set(PUBLISHED) - set(names)
    }
    run = changed(evaluate={"answers": "reasoning"})
    [whole] = [
        one
        for one in retention_beside(summary, run, 0.25, ROWS)
        if (one.benchmark, one.source) == ("all", "model-card")
    ]
    assert [re.fullmatch(FLOAT32, text) is not None for text in whole.differences] == [True]


def test_the_mean_over_all_names_each_benchmark_that_differs() -> None:
    texts = setting_differences(row_of("2511.19676", "interlace", "all"), PROFILE, PUBLISHED)
    named = [text.split(":")[0].split()[-1] for text in texts if " of " in text.split(":")[0]]
    assert sorted(named) == ["MMBench", "OCRBench", "POPE", "ScienceQA"]


def test_the_domain_aware_paper_s_setting_is_that_of_its_profile_but_for_prompts_and_data() -> None:
    run = read_params(ROOT / "profiles/qwen3-vl-2b-domain-aware.yaml")
    row = row_of(DOMAIN_AWARE, "mixed", "ChartQA", "")
    assert [text.split(":")[0] for text in setting_differences(row, run, ["ChartQA"])] == [
        "prompt",
        "tuning data",
    ]
    run = params("Qwen/Qwen3-VL-2B-Instruct", method="mixed")
    other = setting_differences(row, run, ["ChartQA"])
    assert "tuning: finetune.lora_rank = 0 here, 32 there" in other
    assert "tuning: select.tuned = planned here, all there" in other
    assert any(text.startswith("protected layers: the first 3, the last 1 and") for text in other)


def test_a_published_number_stands_beside_ours_only_where_the_setting_is_the_same() -> None:
    pairs = [
        Beside("tuned", "AI2D", 80.0, 1.0, 82.0, "s", differences=("prompt: x", "length: y")),
        Beside("tuned", "POPE", 81.0, 1.0, 83.0, "s", differences=("metric: z", "prompt: x")),
        Beside("tuned", "AI2D", 1.2, 0.01, 1.21, "s", "first token"),
    ]
    assert [row[2:5] for row in published_rows(pairs)] == [
        ("80.0 ± 1.0", "", "see 1, 2"),
        ("81.0 ± 1.0", "", "see 1, 3"),
        ("1.20x ± 0.01", "1.21x", "yes"),
    ]
    notes = ["1. prompt: x", "2. length: y", "3. metric: z"]
    assert difference_notes(pairs)[1:] == notes
    lines = [line.strip() for line in shown_lines(published_table(pairs))]
    assert lines[-3:] == notes
    assert difference_notes(pairs[2:]) == []


def test_the_table_says_where_they_agree_in_80_columns() -> None:
    rows = [
        Beside("dense", "AI2D", 82.0, 1.0, 82.0, "2511.19676, table 5"),
        Beside("tuned", "RealWorldQA", 70.0, 1.0, 82.0, "2511.19676, table 5"),
        Beside("tuned", "all", 70.0, 1.0, 82.0, "2511.19676, table 7", "of dense-ft"),
        Beside("tuned", "AI2D", 1.2, 0.01, 1.21, "2511.19676, table 4", "first token"),
    ]
    for line, facts in zip(
        shown_lines(published_table(rows))[2:],
        [("yes", "82.0 ± 1.0"), ("-12.0",), ("of dense-ft", "70.0% ± 1.0"), ("1.20x ± 0.01",)],
        strict=True,
    ):
        assert all(fact in line for fact in facts)


def test_every_published_benchmark_of_the_twelve_has_our_name() -> None:
    names = {row["benchmark"] for row in ROWS if row["paper"] == "2511.19676"}
    assert set(PUBLISHED) <= names


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="its columns should be paper, table"):
        read_published(tmp_path / "p.csv")
    with pytest.raises(InputError, match="no such file"):
        read_published(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "line", ["p,1,m,interlace,much,AI2D,,score,1", "p,1,m,interlace,0.1", b"\xff"]
)
def test_a_published_number_that_is_none_is_named(tmp_path: Path, line: str | bytes) -> None:
    path = tmp_path / "published.csv"
    content = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(",".join(COLUMNS).encode() + b"\n" + content + b"\n")
    with pytest.raises(InputError, match=f"{path}: .*not a (number|readable table)"):
        read_published(path)
