"""What glassq measures of itself: counted in memory that the processes of one program share, told to Prometheus."""

from glassq.metrics.board import Board as Board
from glassq.metrics.board import Counter as Counter
from glassq.metrics.board import Gauge as Gauge
from glassq.metrics.board import Histogram as Histogram
from glassq.metrics.board import Level as Level
from glassq.metrics.board import Tally as Tally
