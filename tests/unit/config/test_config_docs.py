from rlft.config import docs
from rlft.config.fields import section_of, settings
from rlft.config.renamed import ALIASES, REPLACED


def test_the_page_is_what_the_schema_says():
    assert docs.main(["--check"]) == 0, "docs/configuration.md is stale; run: make docs"


def test_a_stale_page_is_noticed(tmp_path, monkeypatch, capsys):
    page = tmp_path / "configuration.md"
    monkeypatch.setattr(docs, "PATH", page)
    assert docs.main(["--check"]) == 1
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    page.write_text(page.read_text().replace("train.gamma", "train.gama"))
    assert docs.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err


def test_every_setting_has_a_meaning_and_stands_in_page_and_help():
    page, lines = docs.configuration_page(), "\n".join(docs.settings_lines())
    for setting in settings():
        assert setting.field.metadata["doc"].endswith((".", ")")), setting.path
        assert f"{setting.path} = " in lines or section_of(setting.type) is not None
        assert setting.path in page


def test_old_names_lead_to_settings_that_exist():
    keys = {setting.path for setting in settings()}
    assert set(ALIASES.values()) <= keys
    assert not keys & set(ALIASES)
    assert not keys & set(REPLACED)
