"""`occsora-sim doctor`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from occsora_sim.commands.installation import Finding, examine
from occsora_sim.commands.output import Outputs, output_file, write_json
from occsora_sim.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `doctor`.

    Attributes:
        json: also write the findings to this file.

    """

    json: Path | None = None


def run(options: Options) -> None:
    """Print the findings on one screen; write them to --json.

    Raises:
        ConfigurationError: the core cannot run here, or --json cannot be written.

    """
    if options.json:
        output_file(options.json)
    findings = examine()
    broken = [finding.name for finding in findings if finding.state == "broken"]
    with Outputs() as outputs:
        if options.json:
            report = {"usable": not broken, "findings": [asdict(finding) for finding in findings]}
            outputs.write(write_json, options.json, report)
        print_report(findings)
    if broken:
        raise ConfigurationError(
            f"the simulator cannot run here: {', '.join(broken)}; see the remedies above"
        )


def print_report(findings: Sequence[Finding]) -> None:
    """A line for each finding, then what to run, each command once."""
    width = max(len(finding.name) for finding in findings)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for finding in findings:
        line = f"{finding.state:<7}  {finding.name:<{width}}  {finding.told}"
        print(line if len(line) <= columns else f"{line[: columns - 3]}...")
    remedies = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    if remedies:
        print("\nWhat is missing comes by:")
    for remedy in remedies:
        print(f"  {remedy}")
