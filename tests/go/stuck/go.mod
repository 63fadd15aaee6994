module stuck

go 1.21
