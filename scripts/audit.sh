#!/usr/bin/env bash
# Holds the versions of constraints.txt against the databases of known vulnerabilities. Ends with 1 where one is known, and
# with 0 where none is, or where no database can be reached; it then says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
found="$(mktemp)"
trap 'rm -f "$found"' EXIT
"${PYTHON:-.venv/bin/python}" -m pip_audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off \
    --timeout 10 --format json --output "$found" >/dev/null 2>"$found.err" || true
rm -f "$found.err"
"${PYTHON:-.venv/bin/python}" - "$found" <<'PYTHON'
import json
import sys

try:
    with open(sys.argv[1], encoding="utf-8") as file:
        packages = json.load(file)["dependencies"]
except (ValueError, KeyError):
    packages = []
audited = [package for package in packages if "vulns" in package]
if not audited:
    print("audit: no database of vulnerabilities can be reached from here; nothing was audited")
    sys.exit(0)
faults = [f"audit: {one['name']} {one['version']}: {vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'no release'}"
          for one in audited for vuln in one["vulns"]]
print("\n".join([*faults, f"audit: {len(audited)} of {len(packages)} packages audited, {len(faults)} known vulnerabilities"]))
sys.exit(bool(faults))
PYTHON
