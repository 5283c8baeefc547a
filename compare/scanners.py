"""Runs CORScanner, overreacher and corsair-scan on the targets of tests/it/probe_audit.rs, and prints what they find.

docs/probe.md has the result. `make compare-scanners` installs the scanners in a virtual environment and runs this.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

HOST = "api.target.example"
TRUSTED = "https://app.target.example"


def main():
    tools = pathlib.Path(sys.argv[1]) / "bin"
    command = ["cargo", "test", "--quiet", "--test", "it", "--", "--ignored", "--nocapture", "serve_the_targets"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        line = next(line for line in server.stdout if "serving " in line)
        address, *names = line.split("serving ")[1].split()
        # The scanners use the server as their proxy, so they reach it by the name of the targets.
        env = {**os.environ, "http_proxy": f"http://{address}", "HTTP_PROXY": f"http://{address}", "NO_COLOR": "1"}
        env.pop("no_proxy", None)
        env.pop("NO_PROXY", None)
        print("| target | CORScanner | overreacher | corsair-scan |\n|---|---|---|---|")
        for name in names:
            url = f"http://{HOST}/{name}"
            found = [scan(tools, env, url) for scan in (corscanner, overreacher, corsair)]
            print(f"| `{name}` | " + " | ".join(", ".join(each) or "nothing" for each in found) + " |", flush=True)
    finally:
        server.stdin.close()
        server.wait(timeout=20)


def run(command, env, folder):
    result = subprocess.run(command, env={**env, "HOME": folder}, cwd=folder, capture_output=True, text=True, timeout=300)
    return result.stdout + result.stderr


def corscanner(tools, env, url):
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "out.json")
        text = run([tools / "corscanner", "-u", url, "-o", output, "-v"], env, folder)
        try:
            results = json.load(open(output))
        except (OSError, ValueError):
            sys.exit(f"CORScanner failed:\n{text}")
        return sorted({result["type"] for result in results if result})


def overreacher(tools, env, url):
    with tempfile.TemporaryDirectory() as folder:
        output = os.path.join(folder, "out.json")
        text = run([tools / "overreacher", "-u", url, "-o", output, "-A", "--no-color"], env, folder)
        try:
            results = json.load(open(output))["scan_res"]
        except (OSError, ValueError, KeyError):
            sys.exit(f"overreacher failed:\n{text}")
        return sorted({each["attack_name"] for all_of_target in results.values() for each in all_of_target})


def corsair(tools, env, url):
    with tempfile.TemporaryDirectory() as folder:
        request, output = os.path.join(folder, "in.json"), os.path.join(folder, "out.json")
        json.dump({"url": url, "verb": "GET", "params": "", "headers": {"Origin": TRUSTED}}, open(request, "w"))
        text = run([tools / "corsair", request, "-r", output], env, folder)
        try:
            results = json.load(open(output))["summary"]["misconfigured"]
        except (OSError, ValueError, KeyError):
            sys.exit(f"corsair-scan failed:\n{text}")
        return sorted({test for result in results for test in result["misconfigured_test"]})


if __name__ == "__main__":
    main()
