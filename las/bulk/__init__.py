"""Bulk transcription: inputs -> blocks -> workers of Ray Data -> a part file for each block."""

import os

# Ray reads these when it is imported, or started.
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")  # what it would print of its retries: all
