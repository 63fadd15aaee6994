module movers

go 1.21
