// Layer: continuous integration. Adds vitest's JSON report to the exit codes of the other steps and prints one line.
// A test file that does not load, a run that found no test and a report that is missing each count as a failure.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";

const [folder, ...steps] = process.argv.slice(2);
const count = { passed: 0, failed: 0, skipped: 0 };
const fail = (what) => {
  count.failed++;
  console.log(`FAILED: ${what}`);
};

for (const step of steps) {
  const [name, code] = step.split("=");
  if (code === "0") count.passed++;
  else fail(name);
}

const report = path.join(folder, "vitest.json");
if (existsSync(report)) {
  const tests = JSON.parse(readFileSync(report, "utf8"));
  for (const file of tests.testResults) {
    for (const test of file.assertionResults) {
      if (test.status === "passed") count.passed++;
      else if (test.status === "failed") fail(`${path.relative(".", file.name)}: ${test.fullName}`);
      else count.skipped++;
    }
    const own = file.assertionResults.some((test) => test.status === "failed");
    if (file.status === "failed" && !own) fail(`${path.relative(".", file.name)} as a whole: ${file.message}`);
  }
  const code = readFileSync(path.join(folder, "vitest.code"), "utf8").trim();
  if (tests.numTotalTests === 0) fail("no test ran");
  else if (code !== "0" && count.failed === 0) fail(`vitest ended with exit code ${code} without a failed test`);
} else {
  fail("the tests left no report");
}

console.log(`${count.passed} passed, ${count.failed} failed${count.skipped > 0 ? `, ${count.skipped} skipped` : ""}`);
process.exitCode = count.failed > 0 ? 1 : 0;
