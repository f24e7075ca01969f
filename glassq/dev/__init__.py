"""glassq on one machine, to try it out: a private beanstalkd, the daemons, and a simulated Glass (simulator/)."""
