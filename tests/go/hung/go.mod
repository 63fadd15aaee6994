module hung

go 1.21
