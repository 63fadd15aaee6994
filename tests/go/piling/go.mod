module piling

go 1.19
