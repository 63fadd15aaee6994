package main

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// load plays the customers: a number of requests of each kind a second, for a limited time, on connections that are
// kept alive.
func load(url string, rate int, limit time.Duration) {
	client := &http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	if rate < 1 || rate > 1000 {
		rate = 5
	}
	kinds := []func(n int) string{
		func(int) string { return "/search?q=everything" },
		func(int) string { return "/search?q=shoes" },
		func(n int) string { return fmt.Sprintf("/track?order=%d", n%7) },
		func(int) string { return "/subscribe" },
		func(int) string { return "/login" },
		func(int) string { return "/import" },
		func(int) string { return "/transfer?from=till&to=safe" },
		func(int) string { return "/transfer?from=safe&to=till" },
		func(int) string { return "/resize" },
		func(int) string { return "/health" },
	}
	end := time.Now().Add(limit)
	var customers sync.WaitGroup
	for _, kind := range kinds {
		kind := kind
		customers.Add(1)
		go func() {
			defer customers.Done()
			ticker := time.NewTicker(time.Second / time.Duration(rate))
			defer ticker.Stop()
			for n := 0; time.Now().Before(end); n++ {
				<-ticker.C
				get(client, url+kind(n))
			}
		}()
	}
	customers.Wait()
}

// get ignores errors: customers who give up are part of the load.
func get(client *http.Client, url string) {
	response, err := client.Get(url)
	if err != nil {
		return
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
}
