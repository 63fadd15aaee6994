module example.com/cloop

go 1.21
