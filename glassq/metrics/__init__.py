"""What glassq measures of itself: counters in memory that a program's processes share, served to Prometheus.

What has to be counted is counted there (counters.py): no locks between processes, no files. Everything else is looked
up when Prometheus asks. Labels have few values, and none comes from a request.

The intake answers `GET /metrics` itself, at an address of its own; a request that comes in by another listener gets
404, whatever its Host says (intake/metrics.py). worker/sidecar.py serves the pool's.

To measure something new, add an instrument to intake/metrics.py or worker/metrics.py, or a look-up to
worker/collector.py; then the dashboard and the alerts in conf/.
"""

from glassq.metrics.counters import Counter as Counter
from glassq.metrics.counters import Gauge as Gauge
from glassq.metrics.counters import Histogram as Histogram
from glassq.metrics.counters import ProcessCounters as ProcessCounters
from glassq.metrics.counters import SharedCounters as SharedCounters
from glassq.metrics.counters import SharedGauge as SharedGauge
from glassq.metrics.counters import SharedLatest as SharedLatest
from glassq.metrics.counters import SharedPeak as SharedPeak
