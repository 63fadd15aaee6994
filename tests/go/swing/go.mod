module example.com/swing

go 1.21
