"""The queue on beanstalkd. Nothing outside this package names one of its commands, counters or files."""
