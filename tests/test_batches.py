"""Batches of questions: every question gets its own texts, whatever the order in which they are asked."""

from __future__ import annotations

import pytest

from bird_hf.answering import Decoding
from bird_hf.inference import in_batches
from bird_hf.questions import Query

QUERIES = [
    Query(question, None) for question in ("Where is the left kidney?", "What?", "Where?", "What is it?")
]


@pytest.mark.parametrize("n", [1, 3])
def test_each_query_gets_its_own_texts_in_the_order_of_the_queries(n):
    def repeat(batch, decoding):
        return [f"{query.question} {number}" for query in batch for number in range(decoding.n)]

    decoding = Decoding(n=n, temperature=0.0 if n == 1 else 1.0)
    for batch_size in (1, 2, 32):
        said = in_batches(repeat, QUERIES, decoding, batch_size, progress=False)
        assert said == [tuple(f"{query.question} {number}" for number in range(n)) for query in QUERIES]


def test_a_batch_with_too_few_texts_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        in_batches(lambda batch, _: ["only one"], QUERIES, Decoding(), 32, progress=False)
