module example.com/creators

go 1.19
