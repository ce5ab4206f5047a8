"""benchmarks/train_throughput.py on a tiny model: its ways train the same rows, and its table says what it measured."""

import json
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import train_throughput

        yield train_throughput


@pytest.fixture(scope="module")
def table(benchmark):
    import throughput_table

    return throughput_table


@pytest.fixture(scope="module")
def report(benchmark, tmp_path_factory):
    out, threads = tmp_path_factory.mktemp("throughput") / "report.json", torch.get_num_threads()
    benchmark.main(["--tiny", "--rows", "4", "--repeats", "1", "--out", str(out)])
    torch.set_num_threads(threads)
    return json.loads(out.read_text(encoding="utf-8"))


def test_ways_that_train_the_same_rows_have_the_same_loss(benchmark, report):
    for rows in (benchmark.FIVE, benchmark.MIXED):
        losses = {
            way["way"]: way["loss"] for way in report["ways"] if way["rows"] == rows and way["way"] >= "c"
        }
        assert set(losses) >= {"c", "d1", "d2", "d3"}
        for way, loss in losses.items():
            assert loss == pytest.approx(losses["c"], rel=2e-3), way  # bf16


def test_every_way_is_timed_beside_a_matrix_product(report):
    assert report["tiny"] and report["machine"]["threads"] == 1 and report["matmul"]["flops_per_second"] > 0
    for way in report["ways"]:
        assert way["seconds_per_pair"] > 0 and way["of_peak"] > 0 and 0 <= way["padding"] < 1
    joined = [way for way in report["ways"] if way["way"] in ("d2", "d3", "d4")]
    assert [way["padding"] for way in joined] == [0.0] * 5


def test_more_that_is_left_out_is_less_that_is_computed(benchmark):
    bench = benchmark.Bench("tiny", 4)
    flops = {(way.rows, way.letter): bench.flops(way) / way.pairs for way in bench.ways}
    for rows in (benchmark.FIVE, benchmark.MIXED):
        assert flops[rows, "c"] > flops[rows, "d1"] > flops[rows, "d2"]
    assert flops[benchmark.FIVE, "c"] > flops[benchmark.FIVE, "c2"] > flops[benchmark.FIVE, "d1"]
    assert flops[benchmark.FIVE, "a"] > flops[benchmark.FIVE, "b"] > flops[benchmark.FIVE, "c"]


def test_the_table_has_a_line_for_each_way_and_says_whether_the_aims_are_reached(table, report, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_page(page, report)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert text.count("\n| ") == 2 + len(report["ways"]) == 14
    assert text.count("reached)") == 3


def test_the_aims_compare_the_best_way_of_the_rows_that_each_is_about(table):
    def way(letter, rows, seconds, of_peak=0.1):
        return {"way": letter, "rows": rows, "seconds_per_pair": seconds, "of_peak": of_peak}

    five, mixed = table.FIVE, table.MIXED
    ways = [
        way("a", five, 6.0),
        way("b", five, 0.01),
        way("c", five, 0.3),
        way("d1", five, 0.2),
        way("d2", five, 0.1, 0.4),
    ]
    ways += [way("c", mixed, 0.3), way("d1", mixed, 0.15)]
    assert table.compared({"ways": ways}) == pytest.approx({"of (a)": 60, "of (c)": 2, "peak": 0.4})


def test_the_table_of_the_page_is_that_of_the_report(table):
    text = table.PAGE.read_text(encoding="utf-8")
    assert table.as_markdown(json.loads(table.REPORT.read_text(encoding="utf-8"))) in text
