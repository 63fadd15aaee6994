module example.com/vitals

go 1.21
