module benign

go 1.21
