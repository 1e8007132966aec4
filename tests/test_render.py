"""Pages of cryptoctl: what a stranger reads."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ctl import jobs, render, scores
from ctl.terminal import Screen, bar, clean, spark, wrap
from ctl.units import PriceScale, ago, duration, number, percent, price, size, stamp
from tests.outcomes import NO_SCORES, START, scorecard
from tests.replies import CACHE, CLOSED, CONDITION, FIGURES, MODELS, NOW, RUNNING, SCHEDULE, STATUS, SYMBOLS, batch, forecast, job, top_row

PLAIN = Screen()
COLOURED = Screen(colour=True)
GOOD = scorecard(hours=720, width=0.97)
BAD = scorecard(hours=720, coins=5, width=0.7, leak=-0.02, hunch=-0.3, references={"log_har": 1.0, "model": 0.7, "ewma": 1.3}, seed=4)
YOUNG = scorecard(hours=30, coins=3)
ALONE = scorecard("BTC/USDT", hours=720, coins=1, leak=0.02)
NAMED = {**MODELS, "current": [{**model, "name": f"1796079600000-incremental-00{i}-1234", "figures": {**FIGURES, "crps_random_walk": 74.5}}
                               for i, model in enumerate(MODELS["current"])]}  # fmt: skip
LOGGED = {"time": NOW, "level": "info", "logger": "training", "fields": {"job": "12"}}
PAGES: dict[str, Any] = {
    "status": lambda s: render.status(STATUS, s, NOW),
    "health": lambda s: render.health({"severity": "warning", "conditions": [CONDITION]}, s, NOW),
    "get": lambda s: render.forecast(forecast(), s),
    "get, all hours": lambda s: render.forecast(forecast(), s, all_horizons=True),
    "get, a tiny price": lambda s: render.forecast(forecast("PEPE/USDT", 0.00000142), s),
    "get, six figures": lambda s: render.forecast(forecast("BTC/USDT", 99_800.0), s),
    "get, a huge price": lambda s: render.forecast(forecast("BTC/IDR", 987_654_321.0), s),
    "top": lambda s: render.top([top_row("BTC/USDT", 27_123.45), top_row("1000SATS/USDT", 3.12e-7)], s, NOW, by="score", horizon=24),
    "jobs": lambda s: jobs.jobs([job(13, "incremental", "queued"), RUNNING, job(11, state="failed", error="it " * 60)], s, NOW),
    "schedule": lambda s: render.schedule(SCHEDULE, s, NOW),
    "cache stats": lambda s: render.cache_stats(CACHE, s, NOW),
    "schedule, long ages": lambda s: render.schedule([{**row, "last": NOW - 599_000} for row in SCHEDULE], s, NOW),
    "models": lambda s: render.models(MODELS, s, NOW),
    "models, long names": lambda s: render.models(NAMED, s, NOW),
    "log lines": lambda s: render.log_lines([{**LOGGED, "text": "words " * n} for n in range(9, 20)], s, NOW),
    "status, simulated": lambda s: render.status(
        {**STATUS, "process": {**STATUS["process"], "pid": 1_234_567, "clock": "1@2x1500"}}, s, NOW
    ),
    "symbols": lambda s: render.symbols(SYMBOLS, s, NOW),
    "scores": lambda s: scores.scores(GOOD, s, NOW),
    "scores, bad ones": lambda s: scores.scores({**BAD, "again": 123_456, "after": 1, "unknown": 12_345}, s, NOW, coins=True),
    "scores of few hours": lambda s: scores.scores(YOUNG, s, NOW, all_horizons=True, coins=True),
    "scores of one coin": lambda s: scores.scores(ALONE, s, NOW),
    "scores, none yet": lambda s: scores.scores({**NO_SCORES, "symbol": "1000SATS/USDT", "first_due": NOW + 3_600_000}, s, NOW),
}


def unfolded(lines: list[str]) -> str:
    """The text without what wrapping did to it."""
    return " ".join(text(lines).split())


def text(lines: list[str]) -> str:
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_fits_80_columns(page: str) -> None:
    assert max(len(line) for line in PAGES[page](PLAIN)) <= 80


@pytest.mark.parametrize("page", PAGES)
def test_colours_change_nothing_but_the_colours(page: str) -> None:
    assert re.sub(r"\x1b\[[0-9;]*m", "", text(PAGES[page](COLOURED))) == text(PAGES[page](PLAIN))
    assert "\x1b" not in text(PAGES[page](PLAIN))


def test_the_fan_of_a_coin_shows_its_ranges_in_price() -> None:
    lines = render.forecast(forecast(), PLAIN)
    assert lines[0] == "BTC/USDT  27,123.45 USDT at 2023-06-01 12:00 UTC; forecast made 14 min ago"
    row = next(line for line in lines if line.startswith("24 h"))
    assert row.split() == ["24", "h", "25,852", "26,372", "26,848", "27,385", "27,933", "28,437", "29,009", "62.7", "%", "2.94", "%"]
    assert any("expires in 46 min" in line for line in lines)
    assert "Lately, of BTC/USDT: 50 % held 49.3 %, 80 % held 80.1 %, 95 % held 94.8 % of 5,040 outcomes" in " ".join(lines[-2:])
    assert "after a day" in render.forecast(forecast(coverage=None), PLAIN)[-1]
    assert [line.split("h")[0].strip() for line in lines if re.match(r" ?\d+ h", line)] == ["1", "2", "4", "8", "12", "24"]
    assert sum(bool(re.match(r" ?\d+ h", line)) for line in render.forecast(forecast(), PLAIN, all_horizons=True)) == 24


def test_the_brackets_stand_over_the_columns_that_they_name() -> None:
    lines = render.forecast(forecast(), PLAIN)
    head = next(line for line in lines if "Median" in line)
    for share, high in (("95 %", "97.5 %"), ("80 %", "90 %"), ("50 %", "75 %")):
        bracket = next(line for line in lines if f" {share} " in line and "┐" in line)
        assert bracket.index("┐") == head.index(f" {high}") + len(high)


def test_a_stale_forecast_says_so_and_why() -> None:
    page = text(render.forecast(forecast(stale=True, reason="the exchange cannot be asked", age=7200.0), PLAIN))
    assert "stale: the exchange cannot be asked" in page
    assert "forecast made 2 h ago" in page


def test_an_expired_forecast_is_called_expired() -> None:
    assert "expired 1 h ago" in text(render.forecast(forecast(age=7200.0), PLAIN))


def test_flags_of_a_forecast_are_shown() -> None:
    page = " ".join(" ".join(render.forecast(forecast(flags=["young", "unusual"]), PLAIN)[-4:]).split())
    assert "; young, unusual Lately" in page
    assert "strangeness 0.41" in page


def test_tiny_prices_are_written_in_a_unit_that_is_named() -> None:
    page = text(render.forecast(forecast("PEPE/USDT", 0.00000142), PLAIN))
    assert "Prices in 0.000001 USDT." in page
    assert "0.00000142 USDT at" in page
    assert "1.4337" in page


def test_top_marks_what_it_is_sorted_by_and_what_is_stale() -> None:
    page = render.top([top_row("BTC/USDT", 27_123.45), top_row("ETH/USDT", 1_870.1, stale=True)], PLAIN, NOW, by="p_up", horizon=12)
    assert page[0] == "Top 2 by P(up), 12 h ahead; candles up to 2023-06-01 12:00 UTC"
    assert page[3].startswith("1  BTC/USDT    27,123.45  +0.330  62.7 %   +0.96 %      2.94 %  ▁")
    assert "ETH/USDT *" in page[4]
    assert page[-1].startswith("* stale")


def test_an_empty_top_says_that_there_is_nothing_yet() -> None:
    assert render.top([], PLAIN, NOW, by="score", horizon=24) == ["no forecasts yet"]


def test_status_is_one_page_with_the_conditions_below() -> None:
    page = text(render.status(STATUS, PLAIN, NOW))
    assert page.startswith("cryptod 0.1.0  ready, up 3 h 14 min, pid 1234, 2023-06-01 12:14 UTC\n")
    assert "Memory     53 MB of 1.0 GB (daemon 48 MB, children 5.0 MB); at most 362 MB" in page
    assert "Next       incremental in 5 h 46 min, pregenerate in 2 d 13 h" in page
    assert "full retrain 12, batch 2 of 4: step 120 of at most 400, loss" in page
    assert "warning  candles_stale, since 2 h ago" in page


def test_status_of_a_daemon_that_has_only_just_started_is_readable() -> None:
    young = {
        "process": {"version": "0.1.0", "pid": 1, "uptime": 0.2, "state": "starting", "clock": "1@2x60"},
        "health": {"severity": "ok", "conditions": []},
        "candles": {"symbols": 0, "candles": 0, "newest_close": None, "stale": []},
        "models": {"generation": 0, "promoted_at": None, "checkpoints": 0, "coins": 0, "refused": {}},
        "cache": {"entries": 0, "hits": 0, "misses": 0, "last_refresh": None},
        "training": {"running": None, "queued": 0, "last_full": None, "last_incremental": None},
        "memory": {"pss_total": 0, "pss_daemon": 0, "pss_children": 0, "peak_total": 0, "limit": 0},
        "disk": {"path": "/var/lib/cryptod", "used": 0, "free": 0},
        "ledger": {"issues": 0, "first": None, "last": None, "bytes": 0},
        "schedule": [],
    }
    page = text(render.status(young, PLAIN, NOW))
    assert "starting, up 200 ms, pid 1, 2023-06-01 12:14 UTC\n" in page
    assert "Clock      simulated, 60 times as fast\n" in page
    assert "Models     none yet" in page
    assert "Training   idle; last full retrain never, last incremental update never" in page
    assert not re.search("None|Memory|Disk", page)


def test_health_names_condition_text_and_remedy() -> None:
    page = text(render.health({"severity": "warning", "conditions": [CONDITION]}, PLAIN, NOW))
    assert page.startswith("warning: 1 condition\n")
    assert "-> if the coin is halted" in page
    assert render.health({"severity": "ok", "conditions": []}, PLAIN, NOW) == ["ok: no conditions"]


def test_jobs_say_what_went_wrong_below_the_table() -> None:
    failed = job(10, state="failed", error="the child was ended by signal 9", hint="lower train.batch_size", batches=[batch(1, "failed")])
    page = jobs.jobs([failed], PLAIN, NOW)
    assert re.match(r"10  full  failed  3 min ago  1 min 20 s +0/1  schedule", page[1])
    assert page[-1] == "10: the child was ended by signal 9 (lower train.batch_size)"


def test_the_progress_of_a_job_counts_coins_also_after_it_was_taken_up_again() -> None:
    assert jobs.job_share(RUNNING) == 0.25
    assert jobs.job_share(job(state="done")) == 1.0
    assert jobs.job_share(job(state="queued")) == 0.0
    resumed = {**RUNNING, "progress": {"stage": "train", "done": 25, "total": 75, "text": "batch 3"}}
    assert jobs.job_share(resumed) == 0.5
    assert jobs.job_share({**RUNNING, "progress": {"stage": "", "done": 0, "total": 0, "text": ""}}) == 0.25
    line = jobs.progress_line(RUNNING, Screen(width=100), 20.0, 45.0)
    assert line.endswith("25 %  batch 2 of 4  20 s, about 45 s left  step 120 of at most 400…")
    assert len(jobs.progress_line(RUNNING, PLAIN, 20.0, 45.0)) < 80


def test_a_job_that_runs_has_a_bar_and_an_estimate_below_the_table() -> None:
    page = jobs.jobs([{**RUNNING, "started": NOW - 60_000}, job(11, state="done")], PLAIN, NOW)
    assert page[-2] == "full retrain 12, batch 2 of 4: step 120 of at most 400, loss 0.8123, for 1 min"
    assert page[-1] == "███████▌······················ 25 %, about 3 min left"
    assert jobs.rest(60.0, 0.01) is None
    assert jobs.rest(60.0, 0.6, first=0.2) == pytest.approx(60.0)


def test_the_fate_of_a_batch_is_one_line() -> None:
    assert jobs.batch_line(batch(2), 4) == "batch 2 of 4: 25 coins in 4.1 s, promoted as full-12-b2"
    refused = batch(2, promoted=False, reason="no better than full-11-b2")
    assert jobs.batch_line(refused, 4) == "batch 2 of 4: 25 coins in 4.1 s, not promoted (no better than full-11-b2)"
    assert jobs.batch_line(batch(2, "failed", reason="out of memory"), 4) == "batch 2 of 4: 25 coins failed: out of memory"
    assert jobs.batch_line(batch(1, left_out={"NEW/USDT": "too short"}), 1).endswith("; left out: NEW/USDT")


def test_the_end_of_a_job_is_one_line() -> None:
    done = job(12, state="done", batches=[batch(1), batch(2, promoted=False)], peak_rss=310_000_000)
    assert jobs.job_end(done) == "full retrain 12 done in 1 min 20 s, 1 of 2 batches promoted, peak memory 310 MB"
    assert jobs.job_end(job(state="cancelled", started=0)) == "full retrain 12 cancelled"


def test_the_schedule_shows_turns_in_words_and_what_is_off() -> None:
    page = render.schedule(SCHEDULE, PLAIN, NOW)
    assert page[1].endswith("0 */6 * * *           14 min ago  2023-06-01 18:00  in 5 h 46 min")
    assert "0 2 * * 0 less 5 min" in page[2]
    assert page[3].endswith("never       off")
    paused = render.schedule([{**SCHEDULE[0], "paused": True, "next": None}], PLAIN, NOW)
    assert paused[1].endswith("14 min ago  paused")


def test_models_show_skill_refusals_and_the_way_back() -> None:
    page = text(render.models(MODELS, PLAIN, NOW))
    assert "full-12-b1  24 of 25  2023-06-01 12:00  +1.23 %  log_har" in page
    assert "refused: full-9-b1: weights.safetensors" in page
    assert "`cryptoctl models rollback --steps 1`: generation 6, promoted 2023-05-31 11:14" in page
    pinned = text(render.models({**MODELS, "pinned_at": NOW - 60_000}, PLAIN, NOW))
    assert "promoted 2 h 30 min ago; pinned 1 min ago" in pinned
    assert "no models yet" in text(render.models({"current": [], "history": []}, PLAIN, NOW))
    weights = {"weights": {"1h": {"model": 0.96, "ewma": 0.04}}}
    usual, told = (text(render.models(MODELS | weights | {"serve": name}, PLAIN, NOW)).replace("\n", " ") for name in ("model", "ewma"))
    assert "all coins are served by the reference ewma" in told
    assert ("96.0 %" in usual, "96.0 %" in told) == (True, False)


def test_symbols_give_the_reason_for_every_coin_that_is_missing_something() -> None:
    page = text(render.symbols(SYMBOLS, PLAIN, NOW))
    assert "stale: the exchange reports BREAK" in page
    assert "no model: 112 of 720 hours of history" in page
    assert "  USDC/USDT   a stablecoin" in page
    assert "3 coins followed, 2 left out" in page


def said(lines: list[str], name: str) -> str:
    """A sentence of the page, unwrapped."""
    start = next(i for i, line in enumerate(lines) if line.startswith(name + "  "))
    rest = lines[start + 1 :]
    length = next((i for i, line in enumerate(rest) if not line.startswith(" ")), len(rest))
    return " ".join(" ".join(lines[start : start + 1 + length]).split()).removeprefix(name + " ")


def test_scores_say_whether_it_is_skill_or_may_be_chance() -> None:
    good, bad = scores.scores(GOOD, PLAIN, NOW), scores.scores(BAD, PLAIN, NOW)
    assert good[0] == "8,640 forecasts of 12 coins, made from 2023-06-01 00:00 to 2023-06-30 23:00 UTC,"
    assert re.match(r"\+\d\.\d\d % against plain, the best reference: better, and not by chance \(t \d", said(good, "Skill"))
    assert re.match(r"-\d\.\d\d % against log_har, the best reference: worse, and not by chance \(t -\d", said(bad, "Skill"))
    assert said(good, "Coverage").endswith((": as promised", "no farther off than chance may put it in these days"))
    assert said(bad, "Coverage").endswith("inside 95 %: the 50, 80, 90 and 95 % intervals are too narrow")
    assert "as chance may have it" in said(good, "Shape")
    assert "more than chance" in said(bad, "Shape")
    assert said(good, "Direction").count("not to be told from") >= 2
    assert "worse than a coin toss" in said(bad, "Direction")
    assert "worse than always saying 50 %" in said(bad, "Direction")
    assert "worse than chance" in said(bad, "Direction")
    assert re.match(r"C\d+/USDT: [+-]\d+\.\d\d % against log_har \(.* to .* %\)", said(bad, "Worst coin"))
    assert "of outcomes inside its 80 % interval" in said(bad, "Worst coin")
    table = {line.split()[0]: line for line in bad if re.match("ewma|log_har|model alone|as served", line)}
    assert list(table) == ["as", "log_har", "ewma", "model"], "the hardest to beat first"
    assert table["model"].endswith("may be chance")
    assert table["ewma"].endswith(("better", "worse", "may be chance"))


def test_scores_by_horizon_mark_what_is_not_chance() -> None:
    rows = {line.split()[0]: line for line in scores.scores(BAD, PLAIN, NOW) if re.match(r" ?\d+ h ", line)}
    assert list(rows) == ["1", "2", "4", "8", "12", "24"]
    assert rows["1"].count("*") >= 5
    assert re.search(r"\d\.\d %\*", rows["1"])
    many = scores.scores(GOOD, PLAIN, NOW, all_horizons=True)
    assert sum(bool(re.match(r" ?\d+ h ", line)) for line in many) == 24
    good = [line for line in many if re.match(r" ?(1|24) h ", line)]
    assert all("Rank" not in line for line in scores.scores(ALONE, PLAIN, NOW)), "of one coin there is none"
    assert all(len(line.split()) >= 9 for line in good)


def test_scores_of_few_hours_promise_nothing() -> None:
    page = text(scores.scores(YOUNG, PLAIN, NOW, coins=True))
    assert "too few days to tell it from chance" in said(page.splitlines(), "Skill")
    assert "not to be told yet" in page
    assert "Intervals need 144 h of forecasts; there are 30." in " ".join(page.split())
    assert "*" not in page.split("Skill against")[0].split("In ")[1]
    assert not re.search("better$|worse|None|nan", page, re.MULTILINE)


def test_scores_of_one_coin_leave_out_what_takes_several() -> None:
    page = text(scores.scores(ALONE, PLAIN, NOW, coins=True))
    assert page.startswith("720 forecasts of BTC/USDT, made from")
    assert not re.search("Worst coin|rank correlation|Rank", page)


def test_scores_name_what_was_not_counted() -> None:
    page = " ".join(text(scores.scores({**YOUNG, "again": 1_234, "after": 1, "unknown": 24}, PLAIN, NOW)).split())
    assert "Not counted: 1,234 issued again in the same hour, 1 outcome known when it was issued," in page
    assert ", 24 outcomes that never became known." in page


def test_where_there_are_no_scores_yet_the_first_are_announced() -> None:
    soon = " ".join(scores.scores({**NO_SCORES, "first_due": NOW + 8_040_000}, PLAIN, NOW))
    assert soon == "no forecast is 24 h old yet: the first scores will be there in 2 h 14 min, at 2023-06-01 14:28 UTC"
    late = " ".join(scores.scores({**NO_SCORES, "first_due": START}, PLAIN, NOW))
    assert "the first has been due since 2023-06-01 00:00 UTC and waits for the candles" in late
    none = " ".join(scores.scores({**NO_SCORES, "symbol": "NEW/USDT"}, PLAIN, NOW))
    assert none == "no forecast of NEW/USDT was issued in the last 30 days; `cryptoctl symbols` says why a coin has none"


def test_text_from_outside_cannot_move_the_cursor() -> None:
    evil = {"followed": [], "left_out": {"BAD/USDT": "delisted\x1b[2J\x07\nfaked"}}
    assert "\x1b" not in text(render.symbols(evil, PLAIN, NOW))
    stale = forecast(stale=True, reason="\x1b]0;title\x07")
    assert "\x1b" not in text(render.forecast(stale, PLAIN))
    assert clean("a\nb\x1bc") == "a b?c"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (0.00034, "340 us"), (0.012, "12 ms"), (0.9996, "1.0 s"), (1.34, "1.3 s"), (9.96, "10 s"), (59.6, "1 min"),
        (200, "3 min 20 s"), (840, "14 min"), (8040, "2 h 14 min"), (7200, "2 h"), (273_600, "3 d 4 h"), (3_888_000, "45 d"),
        (-5, "-5.0 s"),
    ],
)  # fmt: skip
def test_durations_are_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_ages_times_sizes_and_shares_carry_their_unit() -> None:
    assert (ago(CLOSED, NOW), ago(NOW + 60_000, NOW), ago(NOW, NOW), ago(0, NOW), ago(None, NOW)) == (
        "14 min ago",
        "in 1 min",
        "now",
        "never",
        "never",
    )
    assert (stamp(CLOSED), stamp(None)) == ("2023-06-01 12:00 UTC", "-")
    assert [size(n) for n in (512, 4_200_000, 380e6, 999_900_000, 1.4e9)] == ["512 B", "4.2 MB", "380 MB", "1.0 GB", "1.4 GB"]
    assert (percent(0.521), percent(0.012, 2, sign=True), percent(-0.00001), percent(float("nan")), percent(None)) == (
        "52.1 %", "+1.20 %", "0.0 %", "-", "-",
    )  # fmt: skip
    assert number(4380) == "4,380"


def test_prices_are_written_without_exponents_or_lost_digits() -> None:
    assert [price(x) for x in (27_123.45, 1_870.0, 0.00000142, 3.12e-7, 0.0, float("nan"))] == [
        "27,123.45", "1,870", "0.00000142", "0.000000312", "-", "-",
    ]  # fmt: skip


def test_a_price_scale_keeps_five_digits() -> None:
    assert PriceScale(27_123.45, "USDT")(27_100.06) == "27,100"
    assert PriceScale(1.5, "USDT")(1.50004) == "1.5000"
    assert PriceScale(0.067, "BTC")(0.0671234) == "0.067123"
    assert (PriceScale(3.1e-7, "USDT").unit, PriceScale(3.1e-7, "USDT")(3.12e-7)) == ("0.000001 USDT", "0.31200")


def test_sparks_and_bars_span_their_width() -> None:
    assert spark([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert len(spark(list(range(25)), 12)) == 12
    assert spark([1.0, 1.0], 8) == "▁▁"
    assert spark([], 8) == ""
    assert spark([0.0, 1.0, 9.0], 3, (0.0, 8.0)) == "▁▂█"
    assert [bar(x, 4) for x in (0, 0.5, 1, 2)] == ["····", "██··", "████", "████"]


def test_words_are_wrapped_with_an_indent() -> None:
    assert wrap("one two three four", 9, "  ") == ["one two", "  three", "  four"]
    assert wrap("", 9) == []


def test_a_line_ends_neither_between_a_figure_and_its_unit_nor_within_a_command() -> None:
    assert wrap("expires in 59 min", 15) == ["expires in", "59 min"]
    assert wrap("it held 49.3 % of 5 minutes", 13) == ["it held", "49.3 % of 5", "minutes"]
    assert wrap("ask `cryptoctl get BTC` then", 20) == ["ask", "`cryptoctl get BTC`", "then"]


def test_a_coin_that_was_taken_out_is_not_said_to_have_been_added() -> None:
    gone = {"symbol": "DOGE/USDT", "changed": True, "followed": False, "reason": ""}
    assert render.removed(gone, PLAIN, NOW) == ["DOGE/USDT is forgotten: it was added, and never followed"]
    assert render.removed({**gone, "changed": False, "reason": "removed by hand"}, PLAIN, NOW) == [
        "DOGE/USDT is not followed: removed by hand (as before)"
    ]
    assert render.added(gone, PLAIN, NOW)[0].startswith("DOGE/USDT was added: if the exchange has it")


def test_the_status_says_how_far_a_backfill_is_and_what_it_still_takes() -> None:
    backfill = {"stage": "backfill", "done": 34, "total": 100, "rest": 125.0}
    page = unfolded(render.status({**STATUS, "exchange": {**STATUS["exchange"], "collecting": True, "progress": backfill}}, PLAIN, NOW))
    assert "collecting now (backfill, 34 of 100 coins, about 2 min 5 s left)" in page
    bar = jobs.collecting({"collecting": True, "progress": backfill}, 10)
    assert bar == "collecting candles: backfill ███▍······ 34 %, about 2 min 5 s left"
    assert jobs.collecting(STATUS["exchange"], 10) == ""
    begun = {**backfill, "done": 0, "rest": None}
    page = unfolded(render.status({**STATUS, "exchange": {**STATUS["exchange"], "collecting": True, "progress": begun}}, PLAIN, NOW))
    assert "collecting now (backfill, 0 of 100 coins)" in page
