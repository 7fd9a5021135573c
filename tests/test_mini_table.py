"""The table in miniature: its rows are configurations that exist, and its cells are means over seeds."""

import pytest

from benchmarks import mini_table
from piza_jax.training.config import load_config


def result(row: str, seed: int, macc: float, train: str = "train_s") -> dict:
    numbers = {"mAcc": macc, "Acc50": macc + 0.1, "Acc75": macc - 0.1, "mean_steps": 2.0 + seed}
    return {
        "row": row,
        "train": train,
        "seed": seed,
        "trainable": 1234,
        "train_seconds": 60.0,
        "splits": {"test_a": numbers},
    }


@pytest.mark.parametrize("name", [name for name, row in mini_table.ROWS.items() if row.trains])
def test_every_row_is_a_configuration(name):
    row = mini_table.ROWS[name]
    config = load_config(f"configs/mini.py:peft={row.method},train=train_l", row.changes)
    assert config.peft == row.method
    assert config.data.split == "train_l"
    assert config.search.max_steps == (5 if row.method.startswith("piza_") and name != "one_step" else 1)


def test_cells_are_means_over_seeds_with_the_spread_of_macc():
    text = mini_table.table([result("full", 0, 0.4), result("full", 1, 0.5), result("zero_shot", 0, 0.2)])
    lines = text.splitlines()
    assert len(lines) == 4
    assert "| full fine-tuning | 1,234 | train_s | 45.0 ±7.1 / 55.0 / 35.0 | 2.50 | 60 | 2 |" in lines
    assert "| zero-shot | 1,234 | - | 20.0 / 30.0 / 10.0 | 2.00 | 60 | 1 |" in lines


def test_a_result_that_is_there_is_not_made_again(tmp_path):
    (tmp_path / "coop_train_s_0.json").write_text('{"row": "coop", "marked": 1}')
    settings = mini_table.Settings("nowhere", tmp_path, "nothing")
    assert mini_table.run(settings, "coop", "train_s", 0)["marked"] == 1
