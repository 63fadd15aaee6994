module running

go 1.21
