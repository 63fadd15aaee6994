//go:build cgo

#include <pthread.h>
#include "_cgo_export.h"

static void *call(void *nothing) {
	(void)nothing;
	answer();
	return 0;
}

void startThreads(int n) {
	for (int i = 0; i < n; i++) {
		pthread_t thread;
		if (pthread_create(&thread, 0, call, 0) == 0) {
			pthread_detach(thread);
		}
	}
}
