"""What a prepared dataset holds: settings, roles, pools, statistics, and its cases in HU."""
