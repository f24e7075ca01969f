"""What glassq measures of itself: counters in memory that a program's processes share, served to Prometheus."""

from glassq.metrics.counters import Counter as Counter
from glassq.metrics.counters import Gauge as Gauge
from glassq.metrics.counters import Histogram as Histogram
from glassq.metrics.counters import ProcessCounters as ProcessCounters
from glassq.metrics.counters import SharedCounters as SharedCounters
from glassq.metrics.counters import SharedGauge as SharedGauge
