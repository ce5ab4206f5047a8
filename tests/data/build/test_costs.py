"""The estimate of requests, tokens and costs, and `bird data build --dry-run`."""

from __future__ import annotations

import pytest

from bird_hf.data.build.costs import estimate
from bird_hf.data.folder.publish import open_folder

from ..teachers.example_records import records


class TestEstimate:
    def test_nothing_is_sent_and_what_is_kept_costs_nothing(self, teacher, server, monkeypatch):
        settings, store = teacher.settings, teacher.store
        before = estimate(settings, store, records(4))
        assert (before.images, before.requests, before.kept) == (4, 8, 0) and not server.calls
        list(teacher.dialogues(records(1)))
        after = estimate(settings, store, records(4))
        assert (after.requests, after.kept) == (6, 2)
        assert after.prompt_tokens == pytest.approx(before.prompt_tokens * 3 / 4, rel=0.05)
        done = estimate(settings, store, records(1))
        assert done.requests == done.prompt_tokens == done.most_reply_tokens == 0

    def test_costs_are_those_of_the_prices_for_a_million_tokens(self, teacher):
        plan = estimate(teacher.settings, teacher.store, records(2))
        expected, most = plan.costs(2.0, 8.0)
        assert expected == pytest.approx((2 * plan.prompt_tokens + 8 * plan.reply_tokens) / 1e6)
        assert most == pytest.approx((2 * 3 * plan.prompt_tokens + 8 * 3 * 4 * 2000) / 1e6)

    def test_tokens_are_not_fewer_than_what_is_sent(self, teacher, server):
        plan = estimate(teacher.settings, teacher.store, records(2))
        list(teacher.dialogues(records(2)))
        words = sum(len(message["content"].split()) for call in server.calls for message in call["messages"])
        assert words < plan.prompt_tokens < 4 * words


class TestDryRun:
    def test_a_dry_run_counts_and_asks_nothing_and_the_build_goes_on_from_it(
        self, chat_build, server, tmp_path
    ):
        code, out, _ = chat_build("--dry-run", "--prompt-price", "2", "--reply-price", "8")
        assert code == 0 and out.startswith("8 images, 16 requests, 0 more are answered already\n")
        expected, most = (line.split(" | ") for line in out.splitlines()[-2:])
        prompt, reply, cost = (float(cell.strip(" |").replace(",", "")) for cell in expected[1:])
        assert cost == pytest.approx((2 * prompt + 8 * reply) / 1e6, abs=0.005)
        assert float(most[1].replace(",", "")) > prompt
        assert not server.calls and not (tmp_path / "out" / "data").exists()
        code, out, _ = chat_build()
        assert code == 0 and len(server.calls) >= 16
        rows = open_folder(tmp_path / "out", "chat", "train")
        assert set(rows["teacher"]) == {"scripted"}
        asked = len(server.calls)
        assert chat_build()[0] == 0 and len(server.calls) == asked  # nothing is paid twice
        assert chat_build("--dry-run")[1].startswith("0 images, 0 requests")

    def test_templates_have_nothing_to_estimate(self, chat_build):
        code, _, err = chat_build("--teacher", "templates", "--dry-run")
        assert code == 2 and "templates cost nothing" in err and err.count("\n") == 1
