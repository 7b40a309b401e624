"""What the bench makes of Postgres's log and of pgbench's."""

from __future__ import annotations

import pytest

from tests.bench.load import NotRunError, Run
from tests.bench.pgbench import WARM_UP, Ended, counted
from tests.bench.replay import Statement, expression, numbered, transactions

ID = "lic_0123456789abcdef0123456789abcdef"
HASH = "ab" * 32
LOG = f"""
2026-11-21 12:00:00 UTC [7] LOG:  parameter "log_statement" changed to "all"
replayed|lictor_machine|11|LOG:  execute stmt_0: SELECT of_one_that_had_begun()
replayed|lictor_machine|11|LOG:  statement: COMMIT;
replayed|lictor_machine|12|LOG:  statement: BEGIN;
replayed|lictor_license|13|LOG:  statement: BEGIN;
replayed|lictor_machine|12|LOG:  execute stmt_1: SELECT a::text
\t  FROM b WHERE c = $1 AND d = ANY ($2)
replayed|lictor_machine|12|DETAIL:  Parameters: $1 = '{ID}', $2 = '{{"\\\\x{HASH}"}}', $3 = NULL, $4 = 'it''s, $5 = NULL'
replayed|lictor_license|13|LOG:  statement: SELECT another_role()
replayed|lictor_machine|14|LOG:  statement: BEGIN;
replayed|lictor_machine|14|LOG:  statement: ROLLBACK;
replayed|lictor_license|13|LOG:  statement: COMMIT;
replayed|lictor_machine|12|LOG:  statement: COMMIT;
replayed|lictor_machine|14|LOG:  statement: BEGIN;
"""


def test_the_statements_of_a_transaction_are_read_with_their_values() -> None:
    [whole] = transactions(LOG, "lictor_machine")
    assert whole == [
        Statement("BEGIN", {}),
        Statement(
            "SELECT a::text\n  FROM b WHERE c = $1 AND d = ANY ($2)",
            {1: ID, 2: f'{{"\\\\x{HASH}"}}', 3: None, 4: "it's, $5 = NULL"},
        ),
        Statement("COMMIT", {}),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "NULL"),
        ("", "U&''"),
        ("it's", "U&'it''s'"),
        ("12:34\\", "U&'12\\003A34\\\\'"),
        (ID, f"(U&'{ID[:-12]}' || :id::text || U&'')"),
        (f"\\x{HASH}", f"(U&'\\\\x{HASH[:-12]}' || :id::text || U&'')"),
        (f"\\x{HASH}00", f"U&'\\\\x{HASH}00'"),
        (f"{ID}:{ID}", f"(U&'{ID[:-12]}' || :id::text || U&'\\003A{ID[:-12]}' || :id::text || U&'')"),
        (ID.replace("lic", "pol"), f"U&'{ID.replace('lic', 'pol')}'"),
    ],
)
def test_what_varies_in_a_value_takes_the_number_of_the_transaction(value: str | None, expected: str) -> None:
    assert expression(value) == expected


def test_an_id_is_as_long_with_a_number_and_no_two_are_the_same() -> None:
    made = {numbered(ID, client, n) for client in range(32) for n in (1, 2, 999_999)}
    assert {len(one) for one in made} == {len(ID)}
    assert len(made) == 96
    assert numbered(ID, 3, 17) == "lic_0123456789abcdef0123100003000017"


def test_what_counts_is_when_all_clients_were_at_work_and_warm() -> None:
    def client(number: int, begin_us: int, each_us: int) -> list[Ended]:
        return [Ended(number, n, each_us + n, begin_us + n * each_us) for n in range(WARM_UP + 4)]

    quick, slow = client(0, 0, 100), client(1, 0, 130)
    begin, end = slow[WARM_UP - 1].at_us, quick[-1].at_us
    assert (begin, end) == (910, 1100)
    # Of the quick one those at 1000 and 1100, of the slow one that at 1040.
    assert counted([*slow, *quick], WARM_UP + 4) == Run(3, 190e-6, (110, 111, 138))
    with pytest.raises(NotRunError, match="never all at work"):
        counted([*quick, *client(1, 5000, 100)], WARM_UP + 4)
