import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from helpers.eval_results import eval_result
from matplotlib.image import imread
from PIL import Image
from report_run_builder import CONFIG, make_run, write_evaluation

from rlft.errors import RlftError
from rlft.evaluate.suite import make_table
from rlft.files import read_stage, write_stage
from rlft.report.build import build_report
from rlft.report.rundir import read_run
from rlft.report.video import read_video
from rlft.run.provenance import record_command

VOID = {"meta", "br", "img", "hr", "link", "input"}
LOADING = {"src", "href", "xlink:href", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """Collects tags, visible text and addresses, and checks that every element is closed in order."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags, self.ids, self.addresses, self.handlers, self.words, self.headings = ([] for _ in range(6))
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._note(tag, attrs)

    def _note(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in LOADING:
                self.addresses.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
            self.addresses += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)
        if self.open and self.open[-1] == "style":
            self.addresses += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("runs") / "whole")
    build_report(run)
    return run


@pytest.fixture(scope="module")
def page(built: Path) -> Page:
    return Page((built / "report.html").read_text())


def page_of(directory: Path) -> Page:
    return Page(build_report(directory).read_text())


def test_the_page_is_well_formed_and_loads_and_runs_nothing(page: Page):
    assert page.open == []
    assert page.addresses
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert len(page.ids) == len(set(page.ids))
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert "script" not in page.tags
    assert page.handlers == []
    assert " ".join(CONFIG.split()) in page.text


def test_labels_and_commands_are_text_too(tmp_path: Path, monkeypatch):
    evil = '<script>alert("x")</script>'
    write_evaluation(tmp_path, "rl", [True, False], [{"object": evil}, {"object": "'\"><img src=x onerror=y>"}])
    monkeypatch.setattr(sys, "argv", [evil])
    record_command(tmp_path, "rl")
    (tmp_path / "config.yaml").write_text(f"seed: '{evil}'\n")
    page = page_of(tmp_path)
    assert not {"script", "img"} & set(page.tags)
    assert page.handlers == []
    assert page.text.count(evil) == 5  # stratum, command, settings, seed in title and heading


def test_every_section_is_there(page: Page):
    first = ["Before and after", "Rollouts side by side", "Learning", "Demonstrations", "SFT", "Time"]
    assert page.headings == [*first, "Evaluation protocols", "Reproduce", "Settings"]
    assert "Not in this run directory" not in page.text
    assert "no plan 3 7, 11, 13" in page.text
    assert "sft 8 of 20 40.0 % 21.9–61.3 % 40.0 % 38.0 of 50" in page.text
    assert "p = 0.0386" in page.text
    assert "python scripts/train_rl.py seed=3" in page.text


def test_the_figures_are_sound_svg_that_follows_the_theme(built: Path):
    drawings = re.findall(r"<svg.*?</svg>", (built / "report.html").read_text(), flags=re.DOTALL)
    assert len(drawings) == 6
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert root.attrib["aria-label"]
        assert "currentColor" in drawing
        assert "#23292f" not in drawing


def test_the_embedded_videos_play_and_show_both_sides(built: Path, page: Page, tmp_path: Path):
    videos = [address for address in page.addresses if address.startswith("data:video/mp4;base64,")]
    assert [(pair.before.index, pair.gained) for pair in read_run(built).pairs] == [(0, False), (5, False), (12, True)]
    assert len(videos) == 3
    path = tmp_path / "pair.mp4"
    path.write_bytes(base64.b64decode(videos[0].split(",")[1]))
    frames, fps = read_video(path)
    # Episode 0: success in 12 frames before, failure over 20 after; both padded to 58 x 64, 4 columns between.
    assert frames.shape == (20, 58, 64 + 4 + 64, 3)
    assert fps == 20
    assert abs(frames[15].astype(int) - frames[11])[:, :64].mean() < 2


def test_the_same_files_give_the_same_report(built: Path):
    def words() -> tuple[bytes, bytes]:
        html = (built / "report.html").read_bytes()
        without_videos = re.sub(rb"data:video/mp4;base64,[\w+/=]*", b"", html)
        assert len(without_videos) < len(html)
        return (built / "summary.json").read_bytes(), without_videos

    first, image = words(), imread(built / "report.png")
    assert image.shape[1] > 1200
    assert image[..., :3].std() > 0.05
    build_report(built)
    assert words() == first
    # The rasteriser rounds a pixel on an edge now one way, now the other (2 of 1.8 million, seen under load).
    changed = np.abs(imread(built / "report.png") - image) * 255
    assert changed.max() < 1.5
    assert (changed > 0).any(axis=-1).mean() < 1e-4


def test_an_evaluation_alone_gives_a_report_that_names_what_is_missing(tmp_path: Path):
    write_evaluation(tmp_path, "sft", [True, False, True])
    page = page_of(tmp_path)
    assert "Not in this run directory, and so not in this report: config.yaml, metrics.jsonl" in page.text
    assert page.headings == ["Before and after", "Time", "Evaluation protocols"]


def test_any_part_of_a_run_gives_a_page(built: Path, tmp_path: Path):
    assert page_of(tmp_path).headings == []
    for name in ("provenance.jsonl", "collect.json", "metrics.jsonl", "sft.json", "rl.json", "config.yaml"):
        directory = tmp_path / name.split(".")[0]
        directory.mkdir()
        shutil.copy(built / name, directory)
        assert page_of(directory).open == []


def test_videos_without_a_partner_are_shown_alone(built: Path, tmp_path: Path):
    (tmp_path / "videos").mkdir()
    shutil.copy(built / "videos" / "sft_0_success.mp4", tmp_path / "videos")
    write_evaluation(tmp_path, "sft", [True, False])
    page = page_of(tmp_path)
    assert "sft 0: success" in page.text
    assert sum(address.startswith("data:video/mp4") for address in page.addresses) == 1


def test_damage_is_named_and_stops_the_report(tmp_path: Path):
    (tmp_path / "videos").mkdir()
    for label in ("sft", "rl"):
        write_evaluation(tmp_path, label, [True, False])
        (tmp_path / "videos" / f"{label}_0_success.mp4").write_bytes(b"junk")
    with pytest.raises(RlftError, match=r"sft_0_success\.mp4"):
        build_report(tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / "metrics.jsonl").write_text("{broken\n")
    with pytest.raises(RlftError, match=r"metrics\.jsonl:1"):
        build_report(tmp_path)
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("package", ["matplotlib", "jinja2", "av"])
def test_without_what_draws_there_is_a_summary_and_an_error_that_names_the_extra(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(RlftError, match=rf"{package}, which is not installed.*pip install 'rlft-flow\[report\]'"):
        build_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_importing_the_report_loads_nothing_that_draws():
    code = "import sys, rlft.report.build, rlft.report.video; print([m for m in %r if m in sys.modules])"
    drawing = ("matplotlib", "jinja2", "av")
    done = subprocess.run([sys.executable, "-c", code % (drawing,)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_unlike_evaluations_are_refused_loudly(tmp_path: Path):
    write_evaluation(tmp_path, "sft", [False, True])
    write_evaluation(tmp_path, "rl", [True, True])
    page = page_of(tmp_path)
    protocol_hash = read_stage(tmp_path, "eval_rl")["protocol_hash"]
    assert page.text.count(f" {protocol_hash[:12]} ") == 2
    assert protocol_hash in page.text  # in full, with the fields that it is made of
    assert "McNemar" in page.text
    assert "can be compared" not in page.text

    write_evaluation(tmp_path, "rl_long", [True, True], max_episode_steps=200)  # another one beside comparable ones
    text = page_of(tmp_path).text
    assert "McNemar" in text
    assert "These evaluations follow 2 protocols; only rows of the same protocol can be compared" in text

    write_evaluation(tmp_path, "rl", [True, True], max_episode_steps=80)
    text = page_of(tmp_path).text
    assert "Before and after were not measured alike, so they are not compared" in text
    assert "max_episode_steps: 50 before, 80 after" in text
    assert "McNemar" not in text
    assert "other protocols: not comparable" in (tmp_path / "report.html").read_text()  # in the figure
    assert read_run(tmp_path).pairs == []


def test_success_by_stratum_leaves_out_labels_of_one_value(tmp_path: Path):
    carrot, bread = {"object": "carrot & co", "plate": "one"}, {"object": "bread", "plate": "one"}
    write_evaluation(tmp_path, "rl", [True, False, True], [carrot, bread, bread])
    text = page_of(tmp_path).text
    assert "by object; the mean of the rows is 75.0 %" in text
    assert "carrot & co 1 of 1 100.0 %" in text
    assert "by plate" not in text


def test_a_suite_is_a_table_of_its_own_and_no_evaluation(tmp_path: Path):
    results = {"train": eval_result("train", [True, True]), "tables": eval_result("tables", [True, False])}
    table = make_table("rl", "ood", "f" * 64, [("train", "in_distribution"), ("tables", "vision")], results)
    write_stage(tmp_path, "eval_suite_rl", asdict(table))
    run = read_run(tmp_path)
    assert (list(run.evaluations), list(run.suites)) == ([], ["rl"])
    page = page_of(tmp_path)
    assert "Out of distribution" in page.headings
    assert "tables vision 1 of 2 50.0 %" in page.text
    assert "-50.0 points [" in page.text
    assert "Not comparable" not in page.text
    assert read_stage(tmp_path, "summary")["suites"] == {"rl": {"in_distribution": 1.0, "vision": 0.5}}
    write_stage(tmp_path, "eval_suite_rl", asdict(replace(table, unequal={"num_steps": ["4", "10"]})))
    assert "Not comparable. num_steps: 4, 10" in page_of(tmp_path).text


def test_contact_sheets_are_shown_with_what_was_changed(tmp_path: Path):
    sheets = {}
    for name, stage in (("sft", "sft"), ("rollout", "rl")):
        path = tmp_path / f"randomization_{name}.png"
        Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(path)
        sheets[name] = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        changes = [(0.5, 4.0), (0.75, 8.0)] if stage == "rl" else []
        with (tmp_path / "metrics.jsonl").open("a") as file:
            for changed, size in changes:
                means = {"randomization/changed_pixels": changed, "randomization/mean_change": size}
                file.write(json.dumps({"time": 1.0, "stage": stage, "step": 1} | means) + "\n")
    page = page_of(tmp_path)
    assert "Image randomisation" in page.headings
    assert "SFT – – rollouts 62.5 % 6.00" in page.text
    assert [address for address in page.addresses if address.startswith("data:image")] == list(sheets.values())
    (tmp_path / "randomization_sft.png").unlink()
    assert page_of(tmp_path).tags.count("img") == 1
