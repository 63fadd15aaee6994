module boxes

go 1.21
