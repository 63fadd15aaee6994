package main

import "sync"

// A fixed number of workers take jobs from one queue. Nothing leaks here: idle workers wait, and their number stays.
type jobs struct {
	queue chan func()
}

func newJobs(workers int) *jobs {
	j := &jobs{queue: make(chan func(), 64)}
	for i := 0; i < workers; i++ {
		go j.work()
	}
	return j
}

func (j *jobs) work() {
	for job := range j.queue {
		job()
	}
}

func (j *jobs) submit(job func()) {
	j.queue <- job
}

// importAll imports items in the background and says when all are in. The leak: an item without a name is skipped, but
// was counted, so the wait never ends.
func (j *jobs) importAll(items []string) {
	var pending sync.WaitGroup
	pending.Add(len(items))
	for _, item := range items {
		if item == "" {
			continue
		}
		j.submit(func() { defer pending.Done() })
	}
	go func() {
		pending.Wait()
		deliver("import finished")
	}()
}
