"""Sends records through python-logging-loki as its documentation shows."""

import logging
import sys

import logging_loki

url, count = sys.argv[1], int(sys.argv[2])
handler = logging_loki.LokiHandler(url=f"{url}/loki/api/v1/push", tags={"application": "python-client"}, version="1")
logger = logging.getLogger("clients.python")
logger.setLevel(logging.INFO)
logger.addHandler(handler)
for number in range(count):
    logger.warning("python record %d", number, extra={"tags": {"service": "python-client"}})
