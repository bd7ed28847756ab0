"""The units, manifests and the compose file in `deploy/`, by their own checkers."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from streamer.config import resolve

DEPLOY = Path(__file__).parents[2] / "deploy"
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")
MANIFESTS: list[dict[str, Any]] = list(
    yaml.safe_load_all((DEPLOY / "kubernetes" / "streamer.yaml").read_text())
)
COMPOSE: dict[str, Any] = yaml.safe_load(
    (DEPLOY / "container" / "compose.yaml").read_text()
)

EXPOSURE_MAX = 20
"""Of 100: how exposed a unit may be by the rules of `systemd-analyze security`."""


@pytest.mark.skipif(not SYSTEMD_ANALYZE, reason="systemd-analyze is not installed")
class TestUnits:
    @pytest.fixture
    def units(self, tmp_path: Path) -> Path:
        """Return a folder with the units, whose program exists."""
        for path in (DEPLOY / "systemd").iterdir():
            text = path.read_text().replace("/opt/streamer/bin/streamer", "/bin/true")
            (tmp_path / path.name).write_text(text)
        return tmp_path

    def test_systemd_accepts_the_units(self, units: Path) -> None:
        assert SYSTEMD_ANALYZE
        names = sorted(str(path) for path in units.iterdir())
        assert len(names) == 3
        result = subprocess.run(
            [SYSTEMD_ANALYZE, "verify", "--man=no", *names],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")

    @pytest.mark.parametrize("name", ["streamer", "streamer-scheduler"])
    def test_a_service_is_confined(self, name: str, units: Path) -> None:
        assert SYSTEMD_ANALYZE
        result = subprocess.run(
            [
                *(SYSTEMD_ANALYZE, "security", "--offline=true", "--no-pager"),
                *(f"--threshold={EXPOSURE_MAX}", str(units / f"{name}.service")),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-400:]


class TestKubernetes:
    @pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: str(each["kind"]))
    def test_a_manifest_matches_its_schema(self, manifest: dict[str, Any]) -> None:
        validator = pytest.importorskip("kubernetes_validate", exc_type=ImportError)
        validator.validate(manifest, validator.latest_version(), strict=True)

    def test_the_settings_are_accepted(self, tmp_path: Path) -> None:
        (settings,) = [each for each in MANIFESTS if each["kind"] == "ConfigMap"]
        text = settings["data"]["streamer.toml"]
        assert tomllib.loads(text)
        path = tmp_path / "streamer.toml"
        path.write_text(text)
        assert resolve({}, {}, file=str(path)).config.background is False

    def test_selectors_choose_the_pods_they_are_for(self) -> None:
        pods = {
            each["metadata"]["name"]: each["spec"]["template"]["metadata"]["labels"]
            for each in MANIFESTS
            if each["kind"] == "Deployment"
        }
        assert set(pods) == {"streamer", "streamer-scheduler"}
        chosen: dict[str, set[str]] = {}
        for each in MANIFESTS:
            selector = each.get("spec", {}).get("selector")
            if selector is None:
                continue
            labels = selector.get("matchLabels", selector)
            chosen[f"{each['kind']} {each['metadata']['name']}"] = {
                name for name, of in pods.items() if labels.items() <= of.items()
            }
        assert chosen == {
            "Deployment streamer": {"streamer"},
            "Deployment streamer-scheduler": {"streamer-scheduler"},
            "Service streamer": {"streamer"},
            "PodDisruptionBudget streamer": {"streamer"},
        }

    def test_a_pod_has_time_to_drain(self) -> None:
        web = MANIFESTS[1]["spec"]["template"]["spec"]
        (container,) = web["containers"]
        pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
        drain_s = resolve({}, {}).config.drain_s
        assert web["terminationGracePeriodSeconds"] >= pause_s + drain_s + 10
        assert web["enableServiceLinks"] is False


class TestCompose:
    def test_the_environment_of_a_node_is_accepted(self) -> None:
        for name in ("node1", "node2"):
            environment = dict(COMPOSE["services"][name]["environment"])
            config = resolve({}, environment).config
            assert config.redis == "redis://store:6379"

    def test_what_a_service_uses_is_defined(self) -> None:
        for service in COMPOSE["services"].values():
            assert set(service.get("depends_on", {})) <= COMPOSE["services"].keys()
            assert set(service.get("networks", ())) <= COMPOSE["networks"].keys()
            assert set(service.get("secrets", ())) <= COMPOSE["secrets"].keys()
            for config in service.get("configs", ()):
                assert config["source"] in COMPOSE["configs"]

    def test_the_proxy_leads_to_both_nodes(self) -> None:
        text = (DEPLOY / "container" / "nginx.conf").read_text()
        assert "server node1:8080;" in text
        assert "server node2:8080;" in text
