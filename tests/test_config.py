"""The configuration: what is read, what is refused and in which words, what a reload may change."""

import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptod.config import MAX_BYTES, NOT_SETTINGS, Config, check_config, documented, load, reloaded, restart_needed
from cryptod.errors import ConfigError
from cryptod.forecast.model import SOURCES
from cryptod.settings import SETTINGS, VARIABLES, Setting

DOCUMENTED = Path(__file__).parent.parent / "etc" / "cryptod.toml"

Write = Callable[[str], Path]


@pytest.fixture(autouse=True, scope="module")
def no_configuration_of_this_machine() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cryptod.config.DEFAULT_PATH", Path("/nonexistent/cryptod.toml"))
        yield


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a configuration file and returns its path."""

    def file(text: str) -> Path:
        path = tmp_path / "cryptod.toml"
        path.write_text(text)
        return path

    return file


def refused(path: Path | None, environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return caught.value.message


def test_without_a_file_and_variables_all_is_at_its_default() -> None:
    loaded = load(None, {"PATH": "/bin", "CRYPTO": "1"})
    assert loaded.config == Config()
    assert loaded.origins == {}


def test_whoever_is_issued_beside_the_model_can_be_told_to_serve() -> None:
    assert get_args(SETTINGS["forecast.serve"].type) == SOURCES
    assert "one of" in refused(None, {"CRYPTOD_FORECAST_SERVE": "lstm"})


def test_the_defaults_are_those_that_were_promised() -> None:
    config = Config()
    assert (config.train.batch_size, config.train.months_back, config.train.epochs) == (25, 6, 50)
    assert (config.incremental.enabled, config.incremental.epochs, config.incremental.schedule) == (True, 5, "0 */6 * * *")
    assert (config.full_retrain.enabled, config.full_retrain.schedule) == (True, "0 2 * * 0")
    cache = config.prediction_cache
    assert (cache.enabled, cache.ttl_hours, cache.pregenerate_ttl_hours) == (True, 1, 24)
    assert (config.universe.size, config.market.timeframe, config.market.horizons) == (100, "1h", 24)


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_every_default_is_allowed(setting: Setting) -> None:
    assert setting.convert(list(setting.default) if setting.kind is tuple else setting.default) == setting.default
    assert setting.key.meaning.endswith(".")
    assert setting.key.why
    assert setting.allowed


def test_the_documented_file_is_the_tree_at_its_defaults() -> None:
    text = DOCUMENTED.read_text()
    assert text == documented(), "python -c 'from cryptod.config import documented; print(documented(), end=\"\")' > etc/cryptod.toml"
    tree = tomllib.loads(text)
    assert {f"{section}.{key}" for section, table in tree.items() for key in table} == set(SETTINGS)
    loaded = load(DOCUMENTED, {})
    assert loaded.config == Config()
    for setting in SETTINGS.values():
        assert tuple(tree[setting.section][setting.name]) == setting.default if setting.kind is tuple else True
        assert f"# Allowed: {setting.allowed}".split(". ")[0][:60] in text


def test_the_environment_comes_after_the_file(write: Write) -> None:
    path = write("[train]\nbatch_size = 10\nepochs = 20\n")
    loaded = load(path, {"CRYPTOD_TRAIN_EPOCHS": "30"})
    assert (loaded.config.train.batch_size, loaded.config.train.epochs) == (10, 30)
    assert loaded.origins == {"train.batch_size": f"{path}:2", "train.epochs": "environment CRYPTOD_TRAIN_EPOCHS"}


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("CRYPTOD_INCREMENTAL_ENABLED", "false", False),
        ("CRYPTOD_INCREMENTAL_ENABLED", "0", False),
        ("CRYPTOD_INCREMENTAL_ENABLED", "True", True),
        ("CRYPTOD_INCREMENTAL_ENABLED", "1", True),
        ("CRYPTOD_WORKER_NICE", "0", 0),
        ("CRYPTOD_FULL_RETRAIN_SCHEDULE", "30 1 * * 1", "30 1 * * 1"),
        ("CRYPTOD_PREDICTION_CACHE_TTL_HOURS", "24", 24),
        ("CRYPTOD_UNIVERSE_INCLUDE", "BTC/USDT, ETH/USDT", ("BTC/USDT", "ETH/USDT")),
        ("CRYPTOD_UNIVERSE_EXCLUDE", "", ()),
        ("CRYPTOD_EXCHANGE_URL", "http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("CRYPTOD_EXCHANGE_URL", "", ""),
        ("CRYPTOD_SOCKET_PATH", "/tmp/c.sock", "/tmp/c.sock"),
    ],
)
def test_a_variable_is_read_by_the_type_of_its_key(variable: str, text: str, value: object) -> None:
    assert VARIABLES[variable].value(load(None, {variable: text}).config) == value


def test_the_other_variables_of_the_project_are_no_settings() -> None:
    assert load(None, dict.fromkeys(NOT_SETTINGS, "")).config == Config()


@pytest.mark.parametrize(
    ("text", "path", "allowed"),
    [
        ("[train]\nbatch_size = 0", "train.batch_size = 0", "1 to 200"),
        ("[train]\nbatch_size = 201", "train.batch_size = 201", "1 to 200"),
        ("[train]\nbatch_size = 25.0", "train.batch_size = 25.0", "1 to 200"),
        ("[train]\nbatch_size = '25'", 'train.batch_size = "25"', "1 to 200"),
        ("[train]\nbatch_size = true", "train.batch_size = true", "1 to 200"),
        ("[train]\nbatch_size = 999999999999999999999999", "train.batch_size", "1 to 200"),
        ("[train]\nmonths_back = 1", "train.months_back = 1", "2 to 24"),
        ("[incremental]\nenabled = 1", "incremental.enabled = 1", "true or false"),
        ("[incremental]\nenabled = 'yes'", "incremental.enabled", "true or false"),
        ("[incremental]\nschedule = '* * * *'", "incremental.schedule", "five"),
        ("[incremental]\nschedule = '0 0 0 * * *'", "incremental.schedule", "five"),
        ("[incremental]\nschedule = '@daily'", "incremental.schedule", "five"),
        ("[incremental]\nschedule = '61 * * * *'", "incremental.schedule", "Bad minute"),
        ("[full_retrain]\nschedule = '0 0 30 2 *'", "full_retrain.schedule", "five cron fields"),
        ("[full_retrain]\nschedule = ''", "full_retrain.schedule", "five cron fields"),
        ("[full_retrain]\nschedule = ['0 2 * * 0']", "full_retrain.schedule", "five cron fields"),
        ("[prediction_cache]\nttl_hours = 25", "prediction_cache.ttl_hours = 25", "1 to 24"),
        ("[prediction_cache]\npregenerate_ttl_hours = 0", "prediction_cache.pregenerate_ttl_hours", "1 to 48"),
        ("[market]\ntimeframe = '5m'", "market.timeframe", '"1h"'),
        ("[market]\nhorizons = 25", "market.horizons", "1 to 24"),
        ("[exchange]\nid = 'Binance'", "exchange.id", "as in binance"),
        ("[exchange]\nid = ''", "exchange.id", "as in binance"),
        ("[exchange]\nid = 'krakn'", "exchange.id", "did you mean kraken?"),
        ("[exchange]\nid = 'nosuchthing'", "exchange.id", "ccxt has no exchange of that name"),
        ("[exchange]\nproxy = 'proxy:3128'", "exchange.proxy", "an http URL"),
        ("[exchange]\nproxy = 'https://proxy:3128'", "exchange.proxy", "an http URL"),
        ("[exchange]\nid = 'binance\\n'", "exchange.id", "as in binance"),
        ("[exchange]\nurl = 'ftp://host'", "exchange.url", "http or https"),
        ("[exchange]\nurl = 'http://'", "exchange.url", "http or https"),
        ("[exchange]\nurl = 'http://user:secret@host'", "exchange.url", "http or https"),
        ("[exchange]\nurl = 'http://host:99999'", "exchange.url", "http or https"),
        ("[exchange]\nurl = 'http://[::1'", "exchange.url", "http or https"),
        ("[universe]\nsize = 10001", "universe.size", "1 to 10000"),
        ("[universe]\ninclude = 'BTC/USDT'", "universe.include", "a list"),
        ("[universe]\ninclude = ['BTC']", "universe.include", "not a symbol"),
        ("[universe]\ninclude = ['../USDT']", "universe.include", "not a symbol"),
        ("[universe]\ninclude = ['BTC/USDT', 1]", "universe.include", "a list"),
        ("[universe]\nexclude = ['BTC/USDT', 'BTC/USDT']", "universe.exclude", "names BTC/USDT twice"),
        ("[storage]\ndirectory = 'state'", "storage.directory", "an absolute path"),
        ("[storage]\ndirectory = '~/state'", "storage.directory", "an absolute path"),
        ("[storage]\ndirectory = '/var/lib/../../etc'", "storage.directory", "'..'"),
        ('[storage]\ndirectory = "/var/lib/\\u0000"', "storage.directory", "an absolute path"),
        (f"[socket]\npath = '/{'s' * 107}'", "socket.path", "107 bytes"),
        ("[socket]\ngroup = 'a b'", "socket.group", "the name of a group"),
        ("[worker]\nnice = -5", "worker.nice", "0 to 19"),
        ("[worker]\nmemory_mb = 64", "worker.memory_mb", "400 to 65536"),
        ("[log]\nlevel = 'INFO'", "log.level", '"debug", "info", "warning", "error"'),
    ],
)
def test_a_wrong_value_is_refused_with_its_path_its_line_and_what_is_allowed(write: Write, text: str, path: str, allowed: str) -> None:
    file = write(text)
    message = refused(file)
    assert path in message
    assert f"{file}:2" in message
    assert allowed in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[train]\nbatchsize = 3", "train.batchsize", ),
        ("[train]\nnice = 3", "did you mean worker.nice?"),
        ("[trian]\nepochs = 3", "did you mean train?"),
        ("batch_size = 3", "did you mean train.batch_size?"),
        ("train = 3", "must be a table, [train]"),
        ("[[train]]\nepochs = 3", "must be a table, [train]"),
        ("[train.epochs]\nvalue = 3", "train.epochs = "),
        ("[train]\n'\\n\\u001b[31m' = 1", "there is no such key"),
        ("[zzzzzzzzzzz]\n", "there is no such section"),
    ],
)  # fmt: skip
def test_a_misspelt_key_is_refused_with_its_path_and_what_may_be_meant(write: Write, text: str, words: str) -> None:
    message = refused(write(text))
    assert words in message
    assert "\x1b" not in message


def test_a_misspelt_variable_is_refused_with_what_may_be_meant() -> None:
    assert "did you mean CRYPTOD_TRAIN_EPOCHS?" in refused(None, {"CRYPTOD_TRAIN_EPOCH": "3"})
    assert "did you mean CRYPTOD_CONFIG?" in refused(None, {"CRYPTOD_CONFG": "/x"})
    assert "there is no such variable" in refused(None, {"CRYPTOD_": ""})
    assert "there is no such variable" in refused(None, {"CRYPTOD_train_epochs": "3"})


@pytest.mark.parametrize("text", ["", " ", "1_0", "0x10", "１", "3.0", "ten", "9" * 5000, "-1", "--1"])
def test_a_variable_that_spells_no_allowed_number_is_refused(text: str) -> None:
    message = refused(None, {"CRYPTOD_TRAIN_EPOCHS": text})
    assert "train.epochs" in message
    assert "environment CRYPTOD_TRAIN_EPOCHS" in message
    assert "1 to 1000" in message
    assert len(message) < 300


def test_all_problems_are_named_at_once(write: Write) -> None:
    message = refused(
        write("[train]\nepochs = 0\nbatch_size = 0\n[loog]\nlevel = 'info'\n"), {"CRYPTOD_WORKER_NICE": "x", "CRYPTOD_NONE": "1"}
    )
    assert message.startswith("the configuration has 5 problems:")
    assert all(part in message for part in ("train.epochs", "train.batch_size", "loog", "worker.nice", "CRYPTOD_NONE"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[universe]\ninclude = ['BTC/USDT', 'ETH/USDT']\nsize = 1", "names 2 coins, universe.size is 1"),
        ("[universe]\ninclude = ['BTC/USDT']\nexclude = ['BTC/USDT']", "both name BTC/USDT"),
        ("[universe]\ninclude = ['BTC/EUR']", 'exchange.quote = "USDT"'),
        ("[prediction_cache]\nttl_hours = 3\npregenerate_ttl_hours = 2", "must not be below ttl_hours = 3"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both_places(write: Write, text: str, words: str) -> None:
    file = write(text)
    message = refused(file)
    assert words in message
    assert f"{file}:2" in message


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    assert str(missing) in refused(missing)
    assert str(missing) in refused(None, {"CRYPTOD_CONFIG": str(missing)})
    dangling = tmp_path / "link.toml"
    dangling.symlink_to(missing)
    assert str(dangling) in refused(dangling)


def test_cryptod_config_names_the_file_and_an_argument_wins(write: Write, tmp_path: Path) -> None:
    path = write("[train]\nepochs = 7\n")
    assert load(None, {"CRYPTOD_CONFIG": str(path)}).config.train.epochs == 7
    other = tmp_path / "other.toml"
    other.write_text("[train]\nepochs = 8\n")
    assert load(other, {"CRYPTOD_CONFIG": str(path)}).config.train.epochs == 8


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"[train\nepochs = 1", "line 1"),
        (b"[train]\nepochs = 1\nepochs = 2\n\n[log]\n", "line 3"),
        (b"[train]\n\nepochs == 1", "line 3"),
        (b"[train]\n# \xff\nepochs = 1", "not UTF-8 at line 2"),
        (b"\x00", "not TOML"),
        (b"[train]\nepochs = " + b"9" * 5000, "not TOML"),
        (b"a = " + b"[" * 60_000, "nested too deeply"),
        (b"a." * 60_000 + b"b = 1", "nested too deeply"),
        (b"#" * (MAX_BYTES + 1), "larger than"),
    ],
    ids=range(9),
)
def test_a_file_that_is_no_configuration_is_refused_in_one_sentence(tmp_path: Path, raw: bytes, words: str) -> None:
    path = tmp_path / "cryptod.toml"
    path.write_bytes(raw)
    message = refused(path)
    assert words in message
    assert len(message) < 500


def test_what_is_no_regular_file_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "not a regular file" in refused(fifo)
    assert "not a regular file" in refused(Path("/dev/zero"))
    assert "Is a directory" in refused(tmp_path)
    assert "cannot read" in refused(tmp_path / "fifo" / "x.toml")
    assert "cannot read" in refused(tmp_path / ("n" * 300))
    assert "cannot read" in refused(Path("a\0b"))


def test_a_byte_order_mark_is_forgiven(tmp_path: Path) -> None:
    path = tmp_path / "cryptod.toml"
    path.write_bytes(b"\xef\xbb\xbf[train]\nepochs = 9\n")
    assert load(path, {}).config.train.epochs == 9


def test_a_file_that_others_can_change_is_warned_of(write: Write, tmp_path: Path) -> None:
    path = write("")
    assert load(path, {}).warnings == ()
    path.chmod(0o666)
    (warning,) = load(path, {}).warnings
    assert "can be changed by every user (mode 0666)" in warning
    path.chmod(0o644)
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "real.toml").write_text("")
    link = tmp_path / "link.toml"
    link.symlink_to(folder / "real.toml")
    (warning,) = load(link, {}).warnings
    assert str(folder) in warning
    assert str(link) in warning
    folder.chmod(0o777 | stat.S_ISVTX)
    assert load(link, {}).warnings == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_file_of_another_user_is_warned_of(write: Write) -> None:
    path = write("")
    os.chown(path, 12345, -1)
    (warning,) = load(path, {}).warnings
    assert "belongs to user 12345" in warning


def test_check_config_prints_a_configuration_and_where_each_change_came_from(write: Write, tmp_path: Path) -> None:
    path = write('[exchange]\nurl = "http://localhost:1/\\\\"\n[universe]\nexclude = ["LUNA/USDT"]\n')
    loaded = load(path, {"CRYPTOD_TRAIN_EPOCHS": "7"})
    text = check_config(loaded)
    assert re.search(r"^epochs = 7 +# environment CRYPTOD_TRAIN_EPOCHS; default 50$", text, re.M)
    assert re.search(rf"^exclude = \[\"LUNA/USDT\"\] +# {re.escape(str(path))}:4; default \[\]$", text, re.M)
    assert re.search(r"^epochs = 5$", text, re.M)
    again = tmp_path / "again.toml"
    again.write_text(text)
    assert load(again, {}).config == loaded.config


def test_check_config_says_that_there_is_no_file_and_what_is_unsafe(write: Write) -> None:
    path = write("")
    path.chmod(0o666)
    assert "# warning: " in check_config(load(path, {}))
    assert f"# file: {path}" in check_config(load(path, {}))


def test_a_reload_takes_what_can_change_and_names_the_rest(write: Write) -> None:
    old = Config()
    new = load(
        write("[log]\nlevel = 'debug'\n[incremental]\nenabled = false\n[storage]\ndirectory = '/srv/c'\n[exchange]\nid = 'kraken'\n"), {}
    ).config
    applied, restart = restart_needed(old, new)
    assert applied == ["incremental.enabled", "log.level"]
    assert restart == ["exchange.id", "storage.directory"]
    going_on = reloaded(old, new)
    assert (going_on.log.level, going_on.incremental.enabled) == ("debug", False)
    assert (going_on.exchange, going_on.storage) == (old.exchange, old.storage)
    assert restart_needed(old, old) == ([], [])


def test_the_tree_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().train.epochs = 1  # type: ignore[misc]


KEYS = st.sampled_from([*SETTINGS, "train.epoch", "none.none"])
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.integers(), st.booleans(), st.floats(), st.text(), st.lists(st.text(max_size=5), max_size=3), st.sampled_from(["0 2 * * 0", "/x"])
)


@given(st.dictionaries(KEYS.map(lambda path: "CRYPTOD_" + path.replace(".", "_").upper()), st.text()))
def test_any_environment_is_read_or_refused_with_a_sentence(environ: dict[str, str]) -> None:
    try:
        config = load(None, environ).config
    except ConfigError as error:
        problems = error.message.splitlines()[1:]
    else:
        problems = []
        for setting in SETTINGS.values():
            value = setting.value(config)
            assert setting.convert(list(value) if setting.kind is tuple else value) == value
    assert len(problems) <= len(environ) + 2


@given(KEYS.filter(SETTINGS.__contains__), VALUES)
def test_any_value_is_converted_or_refused_by_value_error(path: str, value: Any) -> None:
    setting = SETTINGS[path]
    try:
        converted = setting.convert(value)
    except ValueError:
        return
    assert msgspec.convert(converted, setting.type) == converted
