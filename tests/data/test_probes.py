"""Probes are tasks about drawn images, and a broken file of tasks is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from drawn_rows import Draw, Row, ids, picture, pinned, stored, text_row
from sources_json import write_sources

from interlace.data.probes import ProbeTask, probe, read_tasks, tasks_to_ask, write_probes
from interlace.errors import InputError
from interlace.params.inputs import Probes
from interlace.samples.rows import SCHEMA, iterate, sample_id
from interlace.system.documents import as_yaml
from stages.sample import main as sample_stage

ROOT = Path(__file__).parents[2]
TASKS = [
    {"task": "solve", "domain": "math", "prompt": "Work it out: {question}"},
    {"task": "answer", "domain": "math", "prompt": "{question} Only the result."},
    {"task": "caption", "domain": "nonmath", "prompt": "Describe this image."},
]


def rows_of(source: str, n: int, images: int = 1, start: int = 0) -> list[Row]:
    """Rows of two turns, each with pictures of its own."""
    rows = [text_row(i, source, turns=2) for i in range(start, start + n)]
    for number, row in enumerate(rows, 100 * "abc".index(source)):
        row["images"] = [{"bytes": picture(10 * number + i), "path": None} for i in range(images)]
    return rows


def train_set(folder: Path, rows: list[Row]) -> Path:
    """A training set of all these rows."""
    Draw(folder)(stored(folder / "rows.parquet", rows, group=16))
    return folder / "train"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources a (20 rows), b (12 rows with two images, 5 without) and c (without images)."""
    rows = [*rows_of("a", 20), *rows_of("b", 12, images=2), *rows_of("b", 5, images=0, start=12)]
    return train_set(tmp_path_factory.mktemp("data"), [*rows, *rows_of("c", 3, images=0)])


def probes_params(**changes: Any) -> Probes:
    settings = {"per_task": 6, "math_sources": ("a",), "nonmath_sources": ("b",)}
    return Probes(**(settings | changes))


Write = Callable[..., list[Row]]


@pytest.fixture
def write(train: Path, tmp_path: Path) -> Write:
    """Writes probes; returns their rows."""

    def run(folder: Path = train, seed: int = 0, **changes: Any) -> list[Row]:
        tasks, params = [ProbeTask(**task) for task in TASKS], probes_params(**changes)
        count = write_probes(folder, tmp_path / "probes", tasks, probes=params, seed=seed)
        rows = list(iterate(tmp_path / "probes"))
        assert len(rows) == count
        return rows

    return run


def images_of(rows: list[Row], task: str) -> list[list[bytes]]:
    return sorted(
        [image["bytes"] for image in row["images"]] for row in rows if row["task"] == task
    )


def test_all_tasks_of_a_domain_are_about_the_same_per_task_images(write: Write) -> None:
    rows = write(per_task=7)
    counts = Counter((row["domain"], row["task"]) for row in rows)
    assert counts == {("math", "solve"): 7, ("math", "answer"): 7, ("nonmath", "caption"): 7}
    assert images_of(rows, "solve") == images_of(rows, "answer")
    assert len({*map(tuple, images_of(rows, "solve"))}) == 7


def test_images_are_those_of_training_rows_of_the_domain_s_sources(
    write: Write, train: Path
) -> None:
    images = [(row["source"], row["images"]) for row in iterate(train)]
    for row in write():
        assert row["source"] == {"math": "a", "nonmath": "b"}[row["domain"]]
        assert row["images"] and (row["source"], row["images"]) in images


def test_the_prompt_is_the_only_turn_and_holds_the_first_question_as_it_is() -> None:
    question = r"What is \frac{1}{2} of {question} in {x}?"
    row = text_row(0, turns=2, images=1)
    row["texts"][0]["user"] = question
    turns = probe(row, ProbeTask(**TASKS[0]))["texts"]
    assert turns == [{"user": f"Work it out: {question}", "assistant": ""}]


def test_probes_have_the_columns_of_all_rows_and_ids_of_their_content(
    write: Write, tmp_path: Path
) -> None:
    rows = write()
    assert pq.read_schema(next((tmp_path / "probes").glob("*"))).equals(SCHEMA)
    assert all(row["sample_id"] == sample_id(row) for row in rows)
    assert len(set(ids(rows))) == len(rows)


def test_rows_are_drawn_by_the_seed_in_an_order_of_their_own(
    write: Write, train: Path, tmp_path: Path
) -> None:
    rows = write()
    assert write() == rows
    assert set(ids(write(per_task=1))) < set(ids(write(per_task=4))) < set(ids(rows))
    assert images_of(rows, "solve") != images_of(write(seed=1), "solve")
    backwards = [{k: row[k] for k in ("images", "texts", "source")} for row in iterate(train)][::-1]
    reversed_rows = write(train_set(tmp_path / "backwards", backwards))
    assert set(ids(rows)) == set(ids(reversed_rows))


def test_only_images_of_drawn_rows_are_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    columns: list[list[str]] = []
    read = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, *args: Any, **kwargs: Any) -> Any:
        columns.append(kwargs.get("columns"))
        return read(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    write()
    assert columns[:2] == [["sample_id", "source", "images.list.element.path"]] * 2


def test_without_tasks_the_folder_is_empty_but_readable(train: Path, tmp_path: Path) -> None:
    assert tasks_to_ask(probes_params(per_task=0, prompts="nowhere.yaml")) == ()
    assert write_probes(train, tmp_path / "probes", (), probes=Probes(), seed=0) == 0
    assert pq.read_table(tmp_path / "probes").equals(SCHEMA.empty_table())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"per_task": 13}, r"^probes\.per_task = 13: only 12 .*nonmath_sources \(b\).* to 12"),
        (
            {"math_sources": ("a", "d")},
            r"^probes\.math_sources: .*'d'; name some of a, b, c, or set",
        ),
    ],
)
def test_a_draw_that_the_training_set_cannot_give_is_refused_and_writes_nothing(
    write: Write, tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        write(**changes)
    assert not (tmp_path / "probes").exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"math_sources": ("a", "b")}, r"math_sources and .* overlap: 'b'"),
        ({"nonmath_sources": ()}, r"^probes\.nonmath_sources is empty.*per_task = 6"),
    ],
)
def test_broken_parameters_are_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        tasks_to_ask(probes_params(**changes))


def test_the_shipped_tasks_are_five_about_the_question_and_four_others() -> None:
    tasks = read_tasks(ROOT / "data/probes.yaml")
    assert Counter(task.domain for task in tasks) == {"math": 5, "nonmath": 4}
    assert all(("{question}" in task.prompt) == (task.domain == "math") for task in tasks)


BROKEN_TASKS = [
    ({"domain": "maths"}, "task 'solve': domain = 'maths': "),
    ({"image": "x"}, "task 'solve': image: unknown key"),
    ({"task": "answer"}, "task 'answer' appears twice"),
    ({"task": " "}, "task 1: task = ' ': must not be empty"),
    ({"prompt": TASKS[1]["prompt"] + " \n"}, "tasks 'solve' and 'answer' have the same prompt"),
    ({"prompt": "Solve {problem}"}, "prompt = 'Solve {problem}': unknown placeholder {problem}"),
    ({"prompt": "{ question }"}, "unknown placeholder { question };"),
]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        *((as_yaml([TASKS[0] | change, *TASKS[1:]]), end) for change, end in BROKEN_TASKS),
        (as_yaml(TASKS[2:]), "no task of domain math"),
        ("task: solve", "expected a list of tasks (task, domain, prompt), found dict"),
        ("- solve", "task 1: expected keys and values, found str"),
        ("- [", "not valid YAML: "),
        ("\udcff", "not a readable text file"),
    ],
)
def test_a_broken_file_of_tasks_is_refused_in_one_line(
    tmp_path: Path, content: str, complaint: str
) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(InputError) as refusal:
        read_tasks(path)
    message = str(refusal.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert complaint in message


def test_the_stage_checks_the_tasks_before_it_draws_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    rows = stored(Path("rows.parquet"), rows_of("a", 1))
    write_sources(tmp_path, data=pinned(rows))
    probes = probes_params(prompts="tasks.yaml").model_dump(mode="json")
    params = {"model": {"id": "none"}, "data": {"id": str(rows)}, "probes": probes}
    Path("params.yaml").write_text(as_yaml(params))
    refused = CliRunner().invoke(sample_stage, [])
    assert refused.exit_code == 2
    assert "tasks.yaml: no such file; correct probes.prompts" in refused.output
    assert not Path("data").exists()
