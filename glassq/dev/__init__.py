"""Everything on one machine, for trying out: a private beanstalkd and a simulated Glass."""
