"""Probes are tasks asked about drawn images, and a file of tasks that is none is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from drawn_rows import Draw

from interlace.data.probes import ProbeTask, probe, read_tasks, tasks_to_ask, write_probes
from interlace.errors import InputError
from interlace.outputs import write_json
from interlace.params.inputs import Probes
from interlace.samples.rows import SCHEMA, iterate, sample_id
from interlace.sources.pin import pin_data
from stages.sample import main as sample_stage

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]
TASKS = [
    {"task": "solve", "domain": "math", "prompt": "Work it out: {question}"},
    {"task": "answer", "domain": "math", "prompt": "{question} Only the result."},
    {"task": "caption", "domain": "nonmath", "prompt": "Describe this image."},
]


def rows_of(source: str, n: int, images: int = 1) -> list[Row]:
    start = 100 * "abc".index(source)
    return [
        {
            "images": [
                {"bytes": models.picture(10 * (start + i) + j, side=8), "path": None}
                for j in range(images)
            ],
            "texts": [
                {"user": f"{turn} {source}{i}?", "assistant": "1"} for turn in ("first", "then")
            ],
            "source": source,
        }
        for i in range(n)
    ]


def drawn(folder: Path, rows: list[Row]) -> Path:
    """A training set of all these rows."""
    folder.mkdir()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, folder / "rows.parquet", row_group_size=16)
    Draw(folder)(folder / "rows.parquet")
    return folder / "train"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sources a (20 rows), b (12 rows with two images, 5 without) and c (without images)."""
    rows = [*rows_of("a", 20), *rows_of("b", 12, images=2), *rows_of("c", 3, images=0)]
    bare = [row | {"images": [], "source": "b"} for row in rows_of("c", 8, images=0)[3:]]
    return drawn(tmp_path_factory.mktemp("data") / "drawn", [*rows, *bare])


def asking(**changes: Any) -> Probes:
    settings = {"per_task": 6, "math_sources": ("a",), "nonmath_sources": ("b",)}
    return Probes(**(settings | changes))


Write = Callable[..., list[Row]]


@pytest.fixture
def write(train: Path, tmp_path: Path) -> Write:
    """Writes probes; returns their rows."""

    def run(folder: Path = train, seed: int = 0, **changes: Any) -> list[Row]:
        tasks = [ProbeTask(**task) for task in TASKS]
        probes = asking(**changes)
        count = write_probes(folder, tmp_path / "probes", tasks, probes=probes, seed=seed)
        found = list(iterate(tmp_path / "probes"))
        assert len(found) == count
        return found

    return run


def asked_about(rows: list[Row], task: str) -> list[list[bytes]]:
    return sorted(
        [image["bytes"] for image in row["images"]] for row in rows if row["task"] == task
    )


def test_every_task_has_as_many_probes_as_asked(write: Write) -> None:
    counted = Counter((row["domain"], row["task"]) for row in write(per_task=7))
    assert counted == {("math", "solve"): 7, ("math", "answer"): 7, ("nonmath", "caption"): 7}


def test_all_tasks_of_a_domain_are_asked_about_the_same_images(write: Write) -> None:
    rows = write()
    assert asked_about(rows, "solve") == asked_about(rows, "answer")
    assert asked_about(rows, "solve") != asked_about(rows, "caption")


def test_images_are_those_of_training_rows_of_the_domain_s_sources(
    write: Write, train: Path
) -> None:
    images = {source: set() for source in "abc"}
    for row in iterate(train):
        images[row["source"]] |= {image["bytes"] for image in row["images"]}
    for row in write():
        source = "a" if row["domain"] == "math" else "b"
        assert row["source"] == source
        assert row["images"] and {image["bytes"] for image in row["images"]} <= images[source]


def test_the_prompt_is_the_only_turn_and_holds_the_first_question(write: Write) -> None:
    for row in write():
        (turn,) = row["texts"]
        assert not turn["assistant"]
        if row["task"] == "solve":
            assert turn["user"].startswith("Work it out: first a")
        if row["task"] == "caption":
            assert turn["user"] == "Describe this image."


def test_a_question_is_put_in_as_it_is() -> None:
    question = r"What is \frac{1}{2} of {question} in {x}?"
    row = rows_of("a", 1)[0] | {"texts": [{"user": question, "assistant": "1"}]}
    asked = probe(row, ProbeTask(**TASKS[0]))["texts"][0]["user"]
    assert asked == f"Work it out: {question}"


def test_probes_have_the_columns_of_all_rows(write: Write, tmp_path: Path) -> None:
    write()
    assert pq.read_schema(next((tmp_path / "probes").glob("*"))).equals(SCHEMA)


def test_a_probe_s_id_is_the_hash_of_its_own_content(write: Write) -> None:
    rows = write()
    assert all(row["sample_id"] == sample_id(row) for row in rows)
    assert len({row["sample_id"] for row in rows}) == len(rows)


def test_more_probes_hold_the_fewer(write: Write) -> None:
    found = [{row["sample_id"] for row in write(per_task=n)} for n in (1, 4, 11)]
    assert found[0] < found[1] < found[2]


def test_another_seed_draws_other_images(write: Write) -> None:
    assert asked_about(write(seed=0), "solve") != asked_about(write(seed=1), "solve")


def test_the_draw_is_not_the_first_rows(write: Write) -> None:
    asked = {row["texts"][0]["user"] for row in write(per_task=10) if row["task"] == "solve"}
    assert asked != {f"Work it out: first a{i}?" for i in range(10)}


def test_the_order_of_rows_does_not_matter_to_the_draw(
    write: Write, train: Path, tmp_path: Path
) -> None:
    backwards = [{k: row[k] for k in ("images", "texts", "source")} for row in iterate(train)][::-1]
    one, other = write(), write(drawn(tmp_path / "other", backwards))
    assert {row["sample_id"] for row in one} == {row["sample_id"] for row in other}


def test_the_same_draw_is_the_same_bytes(write: Write, tmp_path: Path) -> None:
    written = []
    for _ in range(2):
        write()
        written.append([path.read_bytes() for path in (tmp_path / "probes").glob("*")])
    assert written[0] == written[1]


def test_only_the_chosen_rows_images_are_read(
    write: Write, train: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    read = pq.ParquetFile.iter_batches

    def iter_batches(self: Any, *args: Any, columns: Any = None, **kwargs: Any) -> Any:
        asked.append(columns)
        batches = list(read(self, *args, columns=columns, **kwargs))
        if columns:
            assert {field.name for field in batches[0].schema.field("images").type.value_type} == {
                "path"
            }
        yield from batches

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", iter_batches)
    write()
    assert [columns for columns in asked if columns]


def test_without_tasks_the_folder_is_empty_but_readable(train: Path, tmp_path: Path) -> None:
    assert write_probes(train, tmp_path / "probes", (), probes=Probes(), seed=0) == 0
    table = pq.read_table(tmp_path / "probes")
    assert table.num_rows == 0
    assert table.schema.equals(SCHEMA)


def test_none_per_task_asks_nothing_and_needs_no_file() -> None:
    assert tasks_to_ask(asking(per_task=0, prompts="nowhere.yaml")) == ()


def test_too_few_rows_with_images_are_refused(write: Write) -> None:
    complaint = (
        r"^probes\.per_task = 13: only 12 training rows of probes\.nonmath_sources \(b\) have"
        r" images; lower it to 12"
    )
    with pytest.raises(InputError, match=complaint):
        write(per_task=13)


def test_an_unknown_source_is_named_with_those_there_are(write: Write) -> None:
    complaint = r"^probes\.math_sources: .* no rows of 'd'; it has a, b, c$"
    with pytest.raises(InputError, match=complaint):
        write(math_sources=("a", "d"))


def test_a_refusal_leaves_no_probes(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write(per_task=50)
    assert not (tmp_path / "probes").exists()


def test_a_source_in_both_domains_is_refused() -> None:
    with pytest.raises(InputError, match=r"math_sources and .* overlap: 'b' is in both"):
        tasks_to_ask(asking(math_sources=("a", "b")))


@pytest.mark.parametrize("domain", ["math", "nonmath"])
def test_a_domain_without_sources_is_refused(domain: str) -> None:
    complaint = rf"^probes\.{domain}_sources is empty, and probes\.per_task = 6: "
    with pytest.raises(InputError, match=complaint):
        tasks_to_ask(asking(**{f"{domain}_sources": ()}))


def test_the_shipped_tasks_are_five_of_math_and_four_others() -> None:
    tasks = read_tasks(ROOT / "data/probes.yaml")
    assert Counter(task.domain for task in tasks) == {"math": 5, "nonmath": 4}


def test_the_shipped_math_tasks_ask_about_the_row_s_question() -> None:
    tasks = read_tasks(ROOT / "data/probes.yaml")
    assert all(("{question}" in task.prompt) == (task.domain == "math") for task in tasks)


def refusal(folder: Path, content: str) -> str:
    """What is said about a file of tasks."""
    path = folder / "tasks.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        tasks_to_ask(asking(prompts=str(path)))
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and "\n" not in said
    return said.removeprefix(f"{path}: ")


BROKEN = {
    "unknown domain": ({"domain": "maths"}, "task 'solve': domain = 'maths': "),
    "no domain": ({"domain": None}, "task 'solve': domain = None: "),
    "unknown key": ({"image": "x"}, "task 'solve': image: unknown key"),
    "repeated task": ({"task": "answer"}, "task 'answer' appears twice"),
    "empty task": ({"task": " "}, "task 1: task = ' ': must not be empty"),
    "task that is no text": ({"task": 7}, "task 1: task = 7: "),
    "repeated prompt": (
        {"prompt": TASKS[1]["prompt"] + " \n"},
        "tasks 'solve' and 'answer' have the same prompt",
    ),
    "empty prompt": ({"prompt": "\n"}, "task 'solve': prompt = '\\n': must not be empty"),
    "unknown placeholder": (
        {"prompt": "Solve {problem}"},
        "task 'solve': prompt = 'Solve {problem}': unknown placeholder {problem}; {question} is",
    ),
    "spaced placeholder": ({"prompt": "{ question }"}, "unknown placeholder { question };"),
    "domain without a task": ({"domain": "nonmath"}, "no task of domain math"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_task_is_named_with_its_file(tmp_path: Path, case: str) -> None:
    change, complaint = BROKEN[case]
    tasks = [TASKS[0] | change, *TASKS[1:]]
    if case == "domain without a task":
        tasks = [TASKS[2]]
    assert complaint in refusal(tmp_path, yaml.safe_dump(tasks))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "expected a list of tasks (task, domain, prompt), found NoneType"),
        ("task: solve", "expected a list of tasks (task, domain, prompt), found dict"),
        ("- solve", "task 1: expected keys and values, found str"),
        ("- [", "not valid YAML: "),
    ],
    ids=["empty", "no list", "no task", "no YAML"],
)
def test_a_file_that_holds_no_tasks_is_refused(
    tmp_path: Path, content: str, complaint: str
) -> None:
    assert complaint in refusal(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: no such file; correct probes\.prompts"):
        tasks_to_ask(asking(prompts=str(tmp_path / "gone.yaml")))


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"tasks\.yaml: not a readable text file"):
        tasks_to_ask(asking(prompts=str(tmp_path / "tasks.yaml")))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with data that is pinned, and a file of tasks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    rows = [*rows_of("a", 8), *rows_of("b", 8)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    (tmp_path / "tasks.yaml").write_text(yaml.safe_dump(TASKS))
    pinned = pin_data("rows.parquet", None, field="data.id", hashes=tmp_path / "hashes.json")
    write_json(tmp_path / "artifacts/sources.json", {"pinned_data": pinned})
    return tmp_path


def run_sample(folder: Path, **probes: Any) -> Any:
    asked = asking(**({"prompts": "tasks.yaml"} | probes)).model_dump(mode="json")
    data = {"id": "rows.parquet"}
    params = {"model": {"id": "none"}, "data": data, "probes": asked}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return CliRunner().invoke(sample_stage, [])


def test_the_stage_writes_probes_beside_the_rows_and_says_so(project: Path) -> None:
    result = run_sample(project)
    assert result.exit_code == 0, result.output
    assert "sample: 18 domain probes of 3 tasks\n" in result.output
    assert len(list(iterate(project / "data/probes"))) == 18


def test_the_stage_checks_the_tasks_before_it_draws(project: Path) -> None:
    result = run_sample(project, prompts="gone.yaml")
    assert result.exit_code == 2
    assert "gone.yaml: no such file" in result.output
    assert not (project / "data").exists()
