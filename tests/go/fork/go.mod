module fork

go 1.19
