"""`helm install` as people type it, by Helm's own engine: what the README of the chart uses of it."""

import argparse
import os
from pathlib import Path

import helm_python

parser = argparse.ArgumentParser()
parser.add_argument("command", choices=["install", "test"])
parser.add_argument("words", nargs="+")
parser.add_argument("-n", dest="namespace", required=True)
parser.add_argument("--create-namespace", action="store_true")
parser.add_argument("-f", action="append", default=[], dest="files")
arguments = parser.parse_intermixed_args()


if arguments.command == "install":
    name, chart = arguments.words
    [file] = arguments.files
    values = helm_python.values_from_yaml(Path(file).read_text())
    with helm_python.Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=arguments.namespace) as config:
        made = config.install(
            chart, name, values, namespace=arguments.namespace, create_namespace=arguments.create_namespace
        )
        print(made.get("notes") or made["manifest"])
else:
    [name] = arguments.words
    with helm_python.Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=arguments.namespace) as config:
        print(config.test(name, timeout=120))
