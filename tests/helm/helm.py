"""Renders deploy/helm/parkwarden with Helm, or lints it: helm.py render|lint CHART VALUES-AS-JSON."""

import json
import sys

import helm_python as helm

what, path, values = sys.argv[1:]
values = json.loads(values)
if what == "lint":
    findings = helm.lint(path, values)
    print(json.dumps(findings))
else:
    with helm.Chart.load(path) as chart:
        rendered = chart.render(values, name="parkwarden", namespace="parkwarden")
    for name, text in sorted(rendered.items()):
        if name.endswith(".yaml") and text.strip():
            print("---\n" + text)
