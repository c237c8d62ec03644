from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value
from models import picture, row

from interlace.errors import InputError
from interlace.evaluation.benchmarks import find_benchmark

pytestmark = pytest.mark.usefixtures("lmms_eval")

Write = Callable[[list[dict[str, Any]]], Path]


def fake(answer: Callable[[dict[str, Any], int], str]) -> Any:
    from evaluation.fake_model import FakeModel

    return FakeModel(answer)


def gold(doc: dict[str, Any], place: int) -> str:
    return str(doc["texts"][-1]["assistant"])


def test_known_answers_give_known_scores(write_rows: Write) -> None:
    from interlace.evaluation.tasks import heldout_tasks, run_tasks

    made = [row(seed, images=seed % 3, source="b" if seed % 2 else "a") for seed in range(12)]
    runs = heldout_tasks(write_rows(made), max_new_tokens=7)

    def answer(doc: dict[str, Any], place: int) -> str:
        right = place < 3 if doc["source"] == "a" else True
        return f"  {gold(doc, place)}.\n" if right else "no"

    model = fake(answer)
    scores, missing = run_tasks(model, runs)
    assert missing == {}
    assert list(scores) == ["a", "b"]
    error = 100 * math.sqrt((6 / 5) * 0.5 * 0.5 / 6)  # of three right in six
    assert scores["a"]["score"] == 50
    assert scores["a"]["standard_error"] == pytest.approx(error)
    assert scores["b"] == {"score": 100, "standard_error": 0, "n": 6, "category": "Held-out"}
    assert model.settings[0]["max_new_tokens"] == 7


def test_a_limit_counts_rows_of_each_source(write_rows: Write) -> None:
    from interlace.evaluation.tasks import heldout_tasks, run_tasks

    made = [row(seed, source="b" if seed > 3 else "a") for seed in range(12)]
    model = fake(gold)
    scores, _ = run_tasks(model, heldout_tasks(write_rows(made), max_new_tokens=7), limit=5)
    assert {name: score["n"] for name, score in scores.items()} == {"a": 4, "b": 5}
    assert len(model.shown) == 9


def test_the_last_turn_is_asked_with_the_true_history(write_rows: Write) -> None:
    from interlace.evaluation.tasks import heldout_tasks, run_tasks

    made = row(4, images=2, turns=3)
    model = fake(gold)
    run_tasks(model, heldout_tasks(write_rows([made]), max_new_tokens=7))
    [turns] = model.shown
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant", "user"]
    assert [part["type"] for part in turns[0]["content"]] == ["image", "image", "text"]
    said = [turn["content"][-1]["text"] for turn in turns]
    first, second, third = made["texts"]
    assert said == [
        first["user"],
        first["assistant"],
        second["user"],
        second["assistant"],
        third["user"],
    ]


def local_pope(tmp_path: Path) -> dict[str, Any]:
    """Made-up rows in POPE's columns, and the override that points the task to them."""
    rows = [
        {
            "id": str(i),
            "question_id": str(i),
            "question": "Is there a dog ?",
            "answer": "yes" if i % 2 else "no",
            "image": {"bytes": picture(i), "path": None},
        }
        for i in range(8)
    ]
    text = dict.fromkeys(("id", "question_id", "question", "answer"), Value("string"))
    path = tmp_path / "pope.parquet"
    Dataset.from_list(rows, features=Features(text | {"image": Image()})).to_parquet(path)
    return {
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(path)}},
    }


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "lmms_eval.api.task._resolve_hf_datasets_cache_dir", lambda: str(tmp_path / "cache")
    )


@pytest.mark.usefixtures("private_cache")
def test_a_published_task_runs_as_lmms_eval_defines_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interlace.evaluation.tasks import published_task, run_tasks

    run = published_task(find_benchmark("POPE"), max_new_tokens=5, override=local_pope(tmp_path))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    model = fake(lambda doc, place: "yes" if place < 6 else doc["answer"])
    scores, missing = run_tasks(model, [run])
    assert missing == {}
    assert scores["POPE"]["score"] == pytest.approx(62.5)  # five of eight
    assert (scores["POPE"]["n"], scores["POPE"]["category"]) == (8, "GVQA")
    image, text = model.shown[0][0]["content"]
    assert image["type"] == "image"
    assert text["text"].startswith("Is there a dog ?\nAnswer")
    assert model.settings[0] == {"max_new_tokens": 5, "until": []}
    assert not list(Path.cwd().iterdir())


@pytest.mark.usefixtures("private_cache")
def test_the_adapter_answers_a_published_task(tmp_path: Path, model_dir: Path) -> None:
    from interlace.evaluation.adapter import open_adapter
    from interlace.evaluation.tasks import published_task, run_tasks

    run = published_task(find_benchmark("POPE"), max_new_tokens=5, override=local_pope(tmp_path))
    scores, _ = run_tasks(open_adapter(model_dir, batch_size=3), [run], limit=4)
    assert scores["POPE"]["n"] == 4


def test_every_published_benchmark_names_a_task_and_a_metric_of_lmms_eval() -> None:
    import lmms_eval.tasks
    from lmms_eval.utils import load_yaml_config

    from interlace.evaluation.benchmarks import BENCHMARKS

    root = Path(lmms_eval.tasks.__file__).parent
    for benchmark in BENCHMARKS.values():
        manager = lmms_eval.tasks.TaskManager(
            include_path=str(root / benchmark.folder), include_defaults=False
        )
        path = manager.task_index[benchmark.task]["yaml_path"]
        config = load_yaml_config(path, mode="simple")
        metrics = {metric["metric"] for metric in config["metric_list"]}
        assert benchmark.metric.split(",")[0] in metrics, benchmark.name
        filters = {given["name"] for given in config.get("filter_list") or [{"name": "none"}]}
        assert benchmark.metric.split(",")[1] in filters, benchmark.name


@pytest.mark.usefixtures("private_cache")
def test_data_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.api.task import ConfigurableTask

    from interlace.evaluation.tasks import published_task

    monkeypatch.setattr(ConfigurableTask.download.retry, "sleep", lambda seconds: None)
    override = {
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "none.parquet")}},
    }
    with pytest.raises(InputError, match="'POPE': cannot open its data"):
        published_task(find_benchmark("POPE"), max_new_tokens=5, override=override)
