module growing

go 1.21
