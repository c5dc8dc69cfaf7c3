from rlft.config.fields import settings, settings_lines
from rlft.config.renamed import ALIASES, REPLACED
from tools import configuration


def test_the_page_is_what_the_schema_says_and_a_stale_one_is_noticed(tmp_path, monkeypatch, capsys):
    assert configuration.main(["--check"]) == 0, "docs/configuration.md is stale; run: make docs"
    page = tmp_path / "configuration.md"
    monkeypatch.setattr(configuration, "PATH", page)
    assert configuration.main(["--check"]) == 1
    assert configuration.main([]) == 0
    assert configuration.main(["--check"]) == 0
    page.write_text(page.read_text().replace("train.gamma", "train.gama"))
    assert configuration.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err


def test_every_setting_has_a_strict_type_and_a_meaning_and_stands_in_page_and_help():
    page, lines = configuration.configuration_page(), "\n".join(settings_lines())
    for setting in settings():
        assert setting.doc.endswith((".", ")")), setting.path
        assert f"{setting.path} = " in lines or setting.is_section
        assert setting.path in page
        if setting.kind in (bool, int, float):  # pydantic's own would take the text "12", and true as 1
            marks = [*setting.info.metadata, setting.info.annotation]
            assert any(word in str(marks) for word in ("Strict", "BeforeValidator")), setting.path


def test_old_names_lead_to_settings_that_exist():
    keys = {setting.path for setting in settings()}
    assert set(ALIASES.values()) <= keys
    assert not keys & (set(ALIASES) | set(REPLACED))
